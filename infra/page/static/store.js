// What the page knows: rows by symbol, feeds, and the chosen symbol's series. Each holds the newest
// value of each key alone, and series their newest bars, so nothing grows with time.

const MOST_BARS = 500;
const MOST_POINTS = 2 * MOST_BARS;

export class Store {
  constructor() {
    this.rows = new Map();
    this.feeds = new Map();
    this.status = null;
    this.names = { intervals: [], windows: [] };
    this.series = null;
    this.offsetMs = 0; // of this clock to the server's
    this.taken = 0; // rows that came
  }

  /** Take a message and say which parts of the page it concerns. */
  take(message) {
    if (message.hello) {
      this.names = message.hello;
      this.rows.clear();
      this.feeds.clear();
      this.series = null;
      return { hello: true, rows: true, series: true };
    }
    for (const row of message.rows || []) this.rows.set(row.symbol, row);
    this.taken += message.rows?.length ?? 0;
    for (const feed of message.feeds || []) this.feeds.set(feed.feed, feed);
    if (message.status) {
      this.status = message.status;
      this.offsetMs = Date.now() - message.status.now_ms;
    }
    if (message.series) this.takeSeries(message.series);
    return { rows: Boolean(message.rows), series: Boolean(message.series) };
  }

  takeSeries(change) {
    const same =
      this.series && this.series.symbol === change.symbol && this.series.interval === change.interval;
    if (change.whole || !same) {
      this.series = {
        symbol: change.symbol,
        interval: change.interval,
        bars: new Map(),
        vwaps: {},
        imbalance: new Map(),
      };
    }
    const series = this.series;
    series.loaded = change.loaded;
    series.failure = change.failure;
    series.book = change.book;
    for (const bar of change.bars) series.bars.set(bar.ts_start, bar);
    cut(series.bars, MOST_BARS);
    for (const [window, points] of Object.entries(change.vwaps)) {
      series.vwaps[window] ||= new Map();
      for (const point of points) series.vwaps[window].set(point[0], point);
      cut(series.vwaps[window], MOST_POINTS);
    }
    for (const point of change.imbalance) series.imbalance.set(point[0], point);
    cut(series.imbalance, MOST_POINTS);
  }

  /** Seconds since a time of the server's clock. */
  age(ms) {
    return (Date.now() - this.offsetMs - ms) / 1000;
  }
}

/** Drop the oldest by time; points of one part of a bar replace each other on the server alone. */
function cut(map, most) {
  if (map.size <= most) return;
  const keys = [...map.keys()].toSorted((one, other) => one - other);
  for (const key of keys.slice(0, map.size - most)) map.delete(key);
}
