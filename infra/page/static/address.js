// What is chosen stands in the URL: a reload, a bookmark or a link shows the same.

export const SPANS = [60, 120, 240, 480];
const SORTS = new Set(["symbol", "last", "change", "rolling", "session", "imbalance", "state", "age"]);

export function read() {
  const asked = new URLSearchParams(location.search);
  const bars = Number(asked.get("bars"));
  const sort = asked.get("sort") || "symbol";
  return {
    symbol: asked.get("symbol") || "",
    interval: asked.get("interval") || "",
    bars: SPANS.includes(bars) ? bars : SPANS[1],
    bands: asked.get("bands") === "1",
    theme: ["dark", "light"].includes(asked.get("theme")) ? asked.get("theme") : "",
    search: asked.get("search") || "",
    sort: SORTS.has(sort.replace(/^-/, "")) ? sort : "symbol",
  };
}

export function write(chosen) {
  const asked = new URLSearchParams();
  if (chosen.symbol) asked.set("symbol", chosen.symbol);
  if (chosen.interval) asked.set("interval", chosen.interval);
  if (chosen.bars !== SPANS[1]) asked.set("bars", chosen.bars);
  if (chosen.bands) asked.set("bands", "1");
  if (chosen.theme) asked.set("theme", chosen.theme);
  if (chosen.search) asked.set("search", chosen.search);
  if (chosen.sort !== "symbol") asked.set("sort", chosen.sort);
  const text = asked.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}
