// Colours stand in the style sheet alone; the charts ask for them by name.

export function colors() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    text: of("muted"),
    grid: of("grid"),
    panel: of("panel"),
    up: of("up"),
    down: of("down"),
    neutral: of("neutral"),
    gap: of("gap"),
    partial: of("partial"),
    healed: of("healed"),
    revised: of("revised"),
    session: of("session"),
    rolling: [of("rolling-1"), of("rolling-2"), of("rolling-3")],
  };
}

/** The colour of a window's VWAP line. */
export function colorOf(window, windows, palette) {
  if (window === "session") return palette.session;
  const rolling = windows.filter((each) => each !== "session");
  return palette.rolling[rolling.indexOf(window) % palette.rolling.length];
}
