// The watch list: thousands of symbols, of which only the rows in sight are elements.

import { digitsFor, fixed, number, percent, signed } from "./decimals.js";
import { byId, make, mark, put } from "./dom.js";
import { ageOf } from "./words.js";

const HEIGHT = 30; // of a row, as in the style sheet
const SPARE = 4; // rows above and below those in sight
const SORT_MS = 1_000;
const HEADINGS = [
  ["symbol", "symbol", "the vendor's spelling"],
  ["last", "last", "price of the last trade"],
  ["change", "change", "against the last session's close; without one, the first price known"],
  ["rolling", "VWAP", "the shortest window"],
  ["session", "VWAP day", "of the market's session so far"],
  ["imbalance", "imbal.", "(bids − asks) / (bids + asks) over five levels"],
  ["state", "feed", "health of the symbol's feed"],
  ["age", "age", "how long ago Kafka got the newest record"],
];

export class WatchList {
  constructor(store, chosen, choose, changed) {
    this.store = store;
    this.chosen = chosen;
    this.choose = choose;
    this.changed = changed;
    this.list = byId("list");
    this.rows = byId("rows");
    this.pool = [];
    this.order = [];
    this.sortedAt = 0;
    this.known = -1;
    this.headings = new Map();
    for (const [key, title, hint] of HEADINGS) {
      const button = make("button", `cell ${key}`, title);
      button.type = "button";
      button.title = hint;
      button.addEventListener("click", () => this.sortBy(key));
      byId("headings").append(button);
      this.headings.set(key, button);
    }
    this.list.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(this.list);
    this.rows.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.choose(row.symbol);
    });
  }

  sortBy(key) {
    const descending = this.chosen.sort === key || (this.chosen.sort !== `-${key}` && key !== "symbol");
    this.chosen.sort = `${descending ? "-" : ""}${key}`;
    this.changed();
    this.refresh(true);
  }

  /** Show what the store has now; the order is made anew once a second. */
  refresh(now = false) {
    const at = performance.now();
    if (now || at - this.sortedAt > SORT_MS || this.store.rows.size !== this.known) {
      this.sortedAt = at;
      this.known = this.store.rows.size;
      this.sort();
    }
    this.draw();
  }

  sort() {
    const wanted = this.chosen.search.trim().toLowerCase();
    const rows = [...this.store.rows.values()].filter(
      (row) => !wanted || row.symbol.toLowerCase().includes(wanted),
    );
    const descending = this.chosen.sort.startsWith("-");
    const key = this.chosen.sort.replace(/^-/, "");
    const value = this.valueOf(key);
    const keyed = rows.map((row) => [value(row), row.symbol]);
    keyed.sort(([one, a], [other, b]) => {
      if (one !== other) {
        // what has no value is at the end, whichever way
        if (Number.isNaN(one) || one === undefined) return 1;
        if (Number.isNaN(other) || other === undefined) return -1;
        return (one < other ? -1 : 1) * (descending ? -1 : 1);
      }
      return a < b ? -1 : a > b ? 1 : 0;
    });
    this.order = keyed.map(([, symbol]) => symbol);
    this.rows.style.height = `${this.order.length * HEIGHT}px`;
    const all = this.store.rows.size;
    put(byId("count"), wanted ? `${this.order.length} of ${all}` : `${all}`);
    for (const [each, button] of this.headings) {
      mark(button, "sort", each === key ? (descending ? "down" : "up") : "");
    }
  }

  valueOf(key) {
    const rolling = this.store.names.windows.find((window) => window !== "session");
    return {
      symbol: (row) => row.symbol,
      last: (row) => number(row.last),
      change: (row) => number(row.change),
      rolling: (row) => number(row.vwaps[rolling]),
      session: (row) => number(row.vwaps.session),
      imbalance: (row) => row.imbalance ?? NaN,
      state: (row) => row.state || undefined,
      age: (row) => -row.newest_ms,
    }[key];
  }

  draw() {
    const first = Math.max(0, Math.floor(this.list.scrollTop / HEIGHT) - SPARE);
    const count = Math.ceil(this.list.clientHeight / HEIGHT) + 2 * SPARE;
    const symbols = this.order.slice(first, first + count);
    while (this.pool.length < symbols.length) this.pool.push(this.makeRow());
    this.pool.forEach((row, index) => {
      const symbol = symbols[index];
      row.hidden = symbol === undefined;
      if (symbol !== undefined) this.fill(row, symbol, first + index);
    });
  }

  makeRow() {
    const row = make("div", "row");
    row.role = "option";
    row.cells = {};
    for (const [key] of HEADINGS) {
      row.cells[key] = make("span", `cell ${key}`);
      row.append(row.cells[key]);
    }
    row.meter = make("span", "meter", "", make("i"));
    row.value = make("span", "number");
    row.cells.imbalance.append(row.meter, row.value);
    this.rows.append(row);
    return row;
  }

  fill(row, symbol, index) {
    const data = this.store.rows.get(symbol);
    if (!data) return;
    const rolling = this.store.names.windows.find((window) => window !== "session");
    const digits = digitsFor(data.last);
    const { cells } = row;
    row.symbol = symbol;
    const top = `${index * HEIGHT}px`;
    if (row.style.top !== top) row.style.top = top;
    mark(row, "chosen", symbol === this.chosen.symbol ? "yes" : "");
    row.ariaSelected = String(symbol === this.chosen.symbol);
    put(cells.symbol, symbol);
    if (cells.symbol.title !== symbol) cells.symbol.title = symbol;
    put(cells.last, fixed(data.last, digits));
    put(cells.change, percent(data.change));
    mark(cells.change, "way", wayOf(data.change));
    put(cells.rolling, fixed(data.vwaps[rolling], digits));
    put(cells.session, fixed(data.vwaps.session, digits));
    put(row.value, signed(data.imbalance));
    row.meter.firstChild.style.setProperty("--part", data.imbalance ?? 0);
    mark(row.meter, "way", data.imbalance === null ? "" : data.imbalance < 0 ? "down" : "up");
    put(cells.state, !data.state ? "–" : data.state === "healthy" ? "" : data.state);
    cells.state.title = data.state ? `${data.feed}: ${data.state}` : "no feed has said anything of it";
    mark(cells.state, "state", data.state);
    const seconds = this.store.age(data.newest_ms);
    put(cells.age, data.newest_ms ? ageOf(seconds) : "–");
    mark(cells.age, "old", seconds > 60 ? "yes" : "");
    mark(cells.symbol, "gap", data.bar.completeness === "gap" ? "yes" : "");
  }

  /** Choose the row so many below the chosen one. */
  step(by) {
    if (!this.order.length) return;
    const at = this.order.indexOf(this.chosen.symbol);
    const next = Math.min(this.order.length - 1, Math.max(0, at < 0 ? 0 : at + by));
    this.choose(this.order[next]);
    this.reveal();
  }

  /** Scroll to the chosen row. */
  reveal() {
    const at = this.order.indexOf(this.chosen.symbol);
    if (at < 0) return;
    const top = at * HEIGHT;
    const { scrollTop, clientHeight } = this.list;
    if (top < scrollTop) this.list.scrollTop = top;
    else if (top + HEIGHT > scrollTop + clientHeight) this.list.scrollTop = top + HEIGHT - clientHeight;
  }
}

export function wayOf(text) {
  const value = number(text);
  return value > 0 ? "up" : value < 0 ? "down" : "";
}
