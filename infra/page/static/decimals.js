// Decimals come as text with every digit that the topic has. They are shown from the text; a float is
// made of one only to draw or to sort.

/** The digits in groups of three, cut (never rounded) to `digits` behind the point. */
export function shown(text, digits = 8) {
  if (text === null || text === undefined) return "–";
  const negative = text.startsWith("-");
  const [whole, fraction = ""] = (negative ? text.slice(1) : text).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  const cut = fraction.slice(0, digits).replace(/0+$/, "");
  return `${negative ? "−" : ""}${grouped}${cut ? `.${cut}` : ""}`;
}

/** The same with just so many digits behind the point: for columns. */
export function fixed(text, digits) {
  if (text === null || text === undefined) return "–";
  const [whole, fraction = ""] = shown(text, digits).split(".");
  return digits ? `${whole}.${fraction.padEnd(digits, "0")}` : whole;
}

/** How many digits behind the point prices of this size need beside each other. */
export function digitsFor(text) {
  const size = Math.abs(number(text));
  if (!(size > 0)) return 2;
  if (size >= 100) return 2;
  if (size >= 1) return 4;
  return 6;
}

/** A float to draw with; NaN for null. */
export function number(text) {
  return text === null || text === undefined ? NaN : Number(text);
}

/** A percentage with its sign. */
export function percent(text) {
  if (text === null || text === undefined) return "–";
  return `${text.startsWith("-") || Number(text) === 0 ? "" : "+"}${fixed(text, 2)} %`;
}

export function signed(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
}
