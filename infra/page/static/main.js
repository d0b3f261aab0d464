// The page: what is chosen, what came, and when to draw it.

import * as address from "./address.js";
import { Charts } from "./charts.js";
import { colorOf, colors } from "./colors.js";
import { newestBars } from "./columns.js";
import { Connection } from "./connection.js";
import { byId, make, mark, put } from "./dom.js";
import { barFacts, heading, ladder, newestBar } from "./panel.js";
import { drawStatus } from "./status.js";
import { Store } from "./store.js";
import { WatchList } from "./watchlist.js";

const CHART_MS = 250; // between two drawings of the charts
export const chosen = address.read();
export const store = new Store();
export const charts = new Charts(byId("chart"));
const stale = { chart: false, list: false };
let drawnAt = 0;
let frame = 0;

const connection = new Connection((message) => {
  const changed = store.take(message);
  if (changed.hello) greet();
  stale.list ||= Boolean(changed.rows);
  stale.chart ||= Boolean(changed.series);
  if (!chosen.symbol && store.rows.size) choose([...store.rows.keys()].toSorted()[0]);
  schedule();
});
const list = new WatchList(store, chosen, choose, () => address.write(chosen));

function greet() {
  const { intervals } = store.names;
  if (!intervals.includes(chosen.interval)) chosen.interval = intervals[0];
  drawChoices();
  show();
}

function show() {
  chosen.lengthMs = lengthOf(chosen.interval);
  if (chosen.symbol && chosen.interval) {
    connection.show({ symbol: chosen.symbol, interval: chosen.interval });
  }
  address.write(chosen);
}

function choose(symbol) {
  if (symbol === chosen.symbol && store.series) return;
  chosen.symbol = symbol;
  show();
  stale.list = true;
  schedule();
}

function schedule() {
  if (!frame) frame = requestAnimationFrame(draw);
}

function draw() {
  frame = 0;
  if (stale.list) {
    stale.list = false;
    list.refresh();
    heading(store.rows.get(chosen.symbol), store.names.windows, chosen.symbol);
    document.title = `${chosen.symbol ? `${chosen.symbol} ` : ""}${byId("last").textContent} · infoway-streams`;
  }
  const now = performance.now();
  if (stale.chart && now - drawnAt >= CHART_MS) {
    stale.chart = false;
    drawnAt = now;
    drawSeries();
  } else if (stale.chart) {
    setTimeout(schedule, CHART_MS - (now - drawnAt));
  }
}

function drawSeries() {
  const series = store.series;
  if (!series || series.symbol !== chosen.symbol || series.interval !== chosen.interval) return;
  const bars = newestBars(series, 1);
  ladder(series.book);
  newestBar(bars[0]);
  note(series, bars.length);
  charts.draw(series, chosen, store.names.windows);
}

function note(series, bars) {
  const said = series.failure
    ? `The past cannot be read: ${series.failure}. Trying again.`
    : !series.loaded
      ? "Reading the topics…"
      : bars
        ? ""
        : `No bar of ${series.interval} yet: the first is published when its time is over.`;
  byId("note").hidden = !said;
  put(byId("note"), said);
}

function drawChoices() {
  group("intervals", store.names.intervals, chosen.interval, setBarInterval);
  group("spans", address.SPANS, chosen.bars, setBars);
  byId("bands").checked = chosen.bands;
  const palette = colors();
  byId("legend").replaceChildren(
    ...store.names.windows.map((window) => {
      const item = make("li", "", `VWAP ${window}`);
      item.style.setProperty("--color", colorOf(window, store.names.windows, palette));
      return item;
    }),
  );
}

function group(id, values, now, set) {
  byId(id).replaceChildren(
    ...values.map((value) => {
      const button = make("button", "", String(value));
      button.type = "button";
      button.ariaPressed = String(value === now);
      button.addEventListener("click", () => set(value));
      return button;
    }),
  );
}

function setBarInterval(interval) {
  chosen.interval = interval;
  drawChoices();
  show();
}

function setBars(bars) {
  chosen.bars = bars;
  redraw();
}

function redraw() {
  drawChoices();
  address.write(chosen);
  stale.chart = true;
  drawnAt = 0;
  schedule();
}

function lengthOf(interval) {
  const unit = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }[interval.slice(-1)];
  return Number(interval.slice(0, -1)) * unit;
}

function setTheme(theme) {
  const wanted = theme || (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
  document.documentElement.dataset.theme = wanted;
  redraw();
}

function stepOf(values, now, by) {
  return values[Math.min(values.length - 1, Math.max(0, values.indexOf(now) + by))];
}

const KEYS = {
  ArrowDown: () => list.step(1),
  ArrowUp: () => list.step(-1),
  PageDown: () => list.step(10),
  PageUp: () => list.step(-10),
  "/": () => byId("search").focus(),
  "[": () => setBarInterval(stepOf(store.names.intervals, chosen.interval, -1)),
  "]": () => setBarInterval(stepOf(store.names.intervals, chosen.interval, 1)),
  "-": () => setBars(stepOf(address.SPANS, chosen.bars, 1)),
  "+": () => setBars(stepOf(address.SPANS, chosen.bars, -1)),
  b: () => setBands(!chosen.bands),
  t: () => toggleTheme(),
  "?": () => byId("help").showModal(),
};

function setBands(bands) {
  chosen.bands = bands;
  redraw();
}

function toggleTheme() {
  chosen.theme = document.documentElement.dataset.theme === "light" ? "dark" : "light";
  setTheme(chosen.theme);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  const typing = event.target === byId("search");
  if (event.key === "Escape") {
    byId("search").value = "";
    byId("search").blur();
    search();
  } else if (typing && event.key === "Enter") {
    byId("search").blur();
    if (list.order.length) choose(list.order[0]);
  } else if (KEYS[event.key] && (!typing || event.key.startsWith("Arrow"))) {
    event.preventDefault();
    KEYS[event.key]();
  }
});

function search() {
  chosen.search = byId("search").value;
  byId("list").scrollTop = 0;
  list.refresh(true);
  address.write(chosen);
}

byId("search").value = chosen.search;
byId("search").addEventListener("input", search);
byId("bands").addEventListener("change", (event) => setBands(event.target.checked));
byId("theme").addEventListener("click", toggleTheme);
byId("help-open").addEventListener("click", () => byId("help").showModal());
matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => setTheme(chosen.theme));

byId("chart").addEventListener("pointermove", (event) => {
  const found = charts.barAt(event.clientX);
  byId("cross").hidden = byId("tip").hidden = !found;
  if (!found) return;
  byId("cross").style.left = `${found.left}px`;
  const tip = byId("tip");
  if (tip.bar !== found.bar) {
    tip.bar = found.bar;
    tip.replaceChildren(barFacts(found.bar));
    mark(tip, "completeness", found.bar.completeness);
  }
  const box = tip.getBoundingClientRect();
  const right = event.clientX + 20 + box.width < innerWidth;
  tip.style.left = `${Math.max(4, right ? event.clientX + 20 : event.clientX - 20 - box.width)}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY - 40, innerHeight - box.height - 8))}px`;
});
byId("chart").addEventListener("pointerleave", () => {
  byId("cross").hidden = byId("tip").hidden = true;
});

setTheme(chosen.theme);
setInterval(() => {
  drawStatus(store, connection);
  stale.list = true;
  schedule();
}, 500);
