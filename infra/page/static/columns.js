// The columns that the charts draw, made of a series: floats begin here, and end in pixels.

import { number } from "./decimals.js";

const HOLE_PARTS = 8; // a line does not lead over a longer hole

/** The newest `count` bars, the oldest first. */
export function newestBars(series, count) {
  const starts = [...series.bars.keys()].toSorted((one, other) => one - other).slice(-count);
  return starts.map((start) => series.bars.get(start));
}

export function revisedLater(bar) {
  return bar.revisions.some((each) => ["late", "gap"].includes(each.cause) && each.revision > 1);
}

export function healed(bar) {
  return bar.provenance !== "trades";
}

export function barColumns(bars, lengthMs, palette) {
  const columns = {
    x: [], open: [], high: [], low: [], close: [], color: [], fill: [], width: [],
    buy: [], sold: [], total: [],
  };
  for (const bar of bars) {
    const open = number(bar.open);
    const close = number(bar.close);
    const volume = number(bar.volume);
    const buy = number(bar.buy_volume) || 0;
    const sell = number(bar.sell_volume) || 0;
    columns.x.push(bar.ts_start + lengthMs / 2);
    columns.open.push(open);
    columns.close.push(close);
    columns.high.push(number(bar.high));
    columns.low.push(number(bar.low));
    columns.color.push(close >= open ? palette.up : palette.down);
    // what is not final, or not made of trades, is paler
    columns.fill.push(!bar.is_closed ? 0.35 : healed(bar) ? 0.15 : 1);
    columns.width.push(lengthMs * 0.64);
    columns.buy.push(buy);
    columns.sold.push(buy + sell);
    columns.total.push(Math.max(volume, buy + sell));
  }
  return columns;
}

/** The bars of one completeness, as columns over the whole height. */
export function shadeColumns(bars, completeness, lengthMs) {
  const touched = bars.filter((bar) => bar.completeness === completeness);
  return {
    left: touched.map((bar) => bar.ts_start),
    right: touched.map((bar) => bar.ts_start + lengthMs),
  };
}

/** A mark above each bar that `is` says. */
export function markColumns(bars, is, lengthMs, lift) {
  const marked = bars.filter(is);
  return {
    x: marked.map((bar) => bar.ts_start + lengthMs / 2),
    y: marked.map((bar) => number(bar.high) + lift),
  };
}

/** The points of a line from a time on, in their order; each says whether a hole is before it. */
function sorted(points, fromMs) {
  const parts = [...points.values()].filter((point) => point[1] >= fromMs);
  parts.sort((one, other) => one[0] - other[0]);
  return parts.map((point, index) => ({
    ts: point[1],
    figures: point.slice(2),
    before: index > 0 && point[0] - parts[index - 1][0] > HOLE_PARTS ? parts[index - 1][1] : null,
  }));
}

/** A VWAP line from a time on, broken where there is a hole: areas know no NaN, so a band has no
 * width there. */
export function lineColumns(points, fromMs) {
  const columns = { x: [], y: [], upper: [], lower: [] };
  const add = (x, y, upper, lower) => {
    columns.x.push(x);
    columns.y.push(y);
    columns.upper.push(upper);
    columns.lower.push(lower);
  };
  let last = NaN;
  for (const { ts, figures, before } of sorted(points, fromMs)) {
    const value = number(figures[0]);
    const spread = number(figures[1]);
    if (before !== null) {
      add(before, NaN, last, last);
      add(ts, NaN, value, value);
    }
    add(ts, value, value + spread, value - spread);
    last = value;
  }
  return columns;
}

export function imbalanceColumns(points, fromMs) {
  const columns = { x: [], y: [], positive: [], negative: [] };
  const add = (x, value) => {
    columns.x.push(x);
    columns.y.push(value ?? NaN);
    columns.positive.push(Math.max(0, value ?? 0));
    columns.negative.push(Math.min(0, value ?? 0));
  };
  for (const { ts, figures, before } of sorted(points, fromMs)) {
    if (before !== null) {
      add(before, null);
      add(ts, null);
    }
    add(ts, figures[0]);
  }
  return columns;
}

/** Where the price axis begins and ends for what is shown. */
export function priceRange(columns, lines) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of columns.low) low = Math.min(low, value);
  for (const value of columns.high) high = Math.max(high, value);
  for (const line of lines) {
    for (const value of line) {
      if (Number.isFinite(value)) {
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
  }
  if (!(low <= high)) return [0, 1];
  const room = (high - low) * 0.08 || Math.abs(high) * 0.001 || 1;
  return [low - room, high + room * 1.6];
}
