// What is said of the chosen symbol beside its charts: figures, the book, bars in words.

import { digitsFor, fixed, number, percent, shown, signed } from "./decimals.js";
import { byId, facts, make, mark, put } from "./dom.js";
import { wayOf } from "./watchlist.js";
import { CAUSES, COMPLETENESS, PROVENANCES, timeOf } from "./words.js";

export function heading(row, windows, symbol) {
  put(byId("name"), symbol || "–");
  put(byId("last"), row ? shown(row.last) : "");
  put(byId("change"), row ? percent(row.change) : "");
  mark(byId("change"), "way", row ? wayOf(row.change) : "");
  byId("change").title = row?.base
    ? `against ${shown(row.base)}, ${row.base_is_close ? "the last session's close" : "the first price known here"}`
    : "";
  const digits = row ? digitsFor(row.last) + 2 : 2;
  const list = byId("vwaps");
  for (const window of windows) {
    let entry = list.querySelector(`[data-window="${CSS.escape(window)}"]`);
    if (!entry) {
      entry = make("div", "", "", make("dt", "", `VWAP ${window}`), make("dd"));
      entry.dataset.window = window;
      list.append(entry);
    }
    const value = row?.vwaps[window];
    put(entry.lastChild, value ? fixed(value, digits) : window === "session" ? "market closed" : "–");
    entry.title = value ? `VWAP ${window}: ${value}` : "";
  }
}

/** The depth ladder: asks above, bids below, each size against the largest. */
export function ladder(book) {
  const host = byId("ladder");
  if (!book) {
    host.replaceChildren(make("p", "empty", "no book yet"));
    return;
  }
  const most = Math.max(number(book.bid_volume_10), number(book.ask_volume_10), 1e-18);
  const level = (side, label, price, size, title) => {
    const line = make("div", `level ${side}`, "", make("i"), make("span", "label", label), make("span", "price", price), make("span", "size", shown(size, 4)));
    line.firstChild.style.setProperty("--part", number(size) / most || 0);
    line.title = title;
    return line;
  };
  const middle = make(
    "div", "spread", "",
    make("span", "", `spread ${shown(book.spread)}`),
    make("span", "", `mid ${shown(book.mid)}`),
  );
  const normal = book.book_state === "normal";
  host.replaceChildren(
    level("ask", "10 levels", "", book.ask_volume_10, "size over the first ten ask levels"),
    level("ask", "5 levels", "", book.ask_volume_5, "size over the first five ask levels"),
    level("ask", "best ask", shown(book.best_ask), book.best_ask_size, "least ask price and its size"),
    normal ? middle : make("div", "spread odd", `book is ${book.book_state}`),
    level("bid", "best bid", shown(book.best_bid), book.best_bid_size, "greatest bid price and its size"),
    level("bid", "5 levels", "", book.bid_volume_5, "size over the first five bid levels"),
    level("bid", "10 levels", "", book.bid_volume_10, "size over the first ten bid levels"),
    facts([
      ["levels 1·5·10", [book.imbalance_1, book.imbalance_5, book.imbalance_10].map((each) => signed(each)).join(" ")],
      ["weighted mid", shown(book.weighted_mid)],
      ["order flow", shown(book.ofi, 4)],
    ]),
  );
}

/** All that a bar says, with every digit of the topic. */
export function barFacts(bar, brief = false) {
  const say = (words, word) => (brief ? word : words[word] || word);
  const sides = bar.buy_volume === null
    ? [["by side", "not known: klines have none"]]
    : [["bought", shown(bar.buy_volume, 18), "up"], ["sold", shown(bar.sell_volume, 18), "down"]];
  if (bar.no_side_volume && bar.no_side_volume !== "0") {
    sides.push(["side not known", shown(bar.no_side_volume, 18)]);
  }
  const list = make("div", "bar", "");
  list.append(
    make("p", "when", `${timeOf(bar.ts_start, true)} – ${timeOf(bar.ts_end)}${brief ? "" : " UTC"}`),
    facts([
      ["open", shown(bar.open, 18)],
      ["high", shown(bar.high, 18)],
      ["low", shown(bar.low, 18)],
      ["close", shown(bar.close, 18)],
      ["volume", shown(bar.volume, 18)],
      ...sides,
      ["VWAP", shown(bar.vwap, 18)],
      ["trades", bar.trade_count === null ? "not known" : String(bar.trade_count)],
    ]),
    facts([
      ["revision", `${bar.revision}${bar.is_closed ? "" : ", open"}`],
      ["cause", say(CAUSES, bar.cause), bar.cause],
      ["completeness", say(COMPLETENESS, bar.completeness), bar.completeness],
      ["provenance", say(PROVENANCES, bar.provenance), bar.provenance],
      ["known at", brief ? timeOf(bar.ts_recv / 1000, false, true) : `${timeOf(bar.ts_recv / 1000, true, true)} UTC`],
      ["from", brief ? `${bar.source_partition} : ${bar.source_offset}` : `partition ${bar.source_partition}, offset ${bar.source_offset}`],
    ]),
  );
  const told = bar.revisions;
  if (told.length > 1) {
    const history = make("ol", "revisions");
    for (const each of told) {
      history.append(make("li", each.cause, `${each.revision} ${each.cause}, close ${shown(each.close, 18)}, volume ${shown(each.volume, 18)}, ${timeOf(each.ts_recv / 1000)}`));
    }
    list.append(history);
  }
  return list;
}

export function newestBar(bar) {
  byId("newest").replaceChildren(bar ? barFacts(bar, true) : make("p", "empty", "no bar yet"));
}
