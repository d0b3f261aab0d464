// The three charts of a symbol, drawn by BokehJS: price, volume by side, imbalance. Made once a
// theme; a change replaces the columns of what changed.

import { colorOf, colors } from "./colors.js";
import * as columns from "./columns.js";

const RIGHT = 84; // room of the axes' labels: the charts' plots end at the same pixel
const LEFT = 6;
const field = (name) => ({ field: name });
const BANDED = "session";
const FONT = "system-ui, 'DejaVu Sans', sans-serif";

export class Charts {
  constructor(host) {
    this.host = host;
    this.made = null;
    this.key = "";
    this.drawing = Promise.resolve();
    this.bars = [];
  }

  /** Draw a series; charts are made anew for another theme or other windows. */
  async draw(series, chosen, windows) {
    const key = JSON.stringify([document.documentElement.dataset.theme, windows]);
    if (key !== this.key) {
      this.key = key;
      this.palette = colors();
      this.drawing = this.build(windows);
    }
    await this.drawing;
    if (key === this.key) this.fill(series, chosen, windows);
  }

  async build(windows) {
    const { palette } = this;
    const B = Bokeh;
    const source = (names) =>
      new B.ColumnDataSource({ data: Object.fromEntries(names.map((name) => [name, []])) });
    const x = new B.Range1d({ start: 0, end: 1 });
    const figure = ({ caption, ...options }) =>
      B.Plotting.figure({
        x_range: x,
        x_axis_type: "datetime",
        y_axis_location: "right",
        tools: "",
        toolbar_location: null,
        sizing_mode: "stretch_both",
        min_border_right: RIGHT,
        min_border_left: LEFT,
        min_border_top: 4,
        min_border_bottom: 4,
        background_fill_alpha: 0,
        border_fill_alpha: 0,
        outline_line_color: null,
        title: new B.Title({
          text: caption, text_color: palette.text, text_font: FONT, text_font_size: "11px",
          text_font_style: "normal", standoff: 2,
        }),
        lod_threshold: null,
        ...options,
      });
    const sources = {
      bars: source(["x", "open", "high", "low", "close", "color", "fill", "width", "buy", "sold", "total"]),
      gap: source(["left", "right"]),
      partial: source(["left", "right"]),
      late: source(["x", "y"]),
      healed: source(["x", "y"]),
      imbalance: source(["x", "y", "positive", "negative"]),
      lines: windows.map(() => source(["x", "y", "upper", "lower"])),
    };
    const price = figure({ caption: "price", y_range: new B.Range1d({ start: 0, end: 1 }) });
    this.shade(price, sources.gap, palette.gap, "right_diagonal_line");
    this.shade(price, sources.partial, palette.partial, "dot");
    const bands = windows.map((window, index) =>
      price.varea({
        x: field("x"), y1: field("lower"), y2: field("upper"), source: sources.lines[index],
        fill_color: colorOf(window, windows, palette), fill_alpha: 0.13, visible: false,
      }),
    );
    price.segment({
      x0: field("x"), x1: field("x"), y0: field("low"), y1: field("high"), source: sources.bars,
      line_color: field("color"), line_width: 1.2,
    });
    price.vbar({
      x: field("x"), top: field("close"), bottom: field("open"), width: field("width"),
      source: sources.bars, fill_color: field("color"), fill_alpha: field("fill"),
      line_color: field("color"), line_width: 1.2,
    });
    windows.forEach((window, index) =>
      price.line({
        x: field("x"), y: field("y"), source: sources.lines[index],
        line_color: colorOf(window, windows, palette), line_width: window === "session" ? 2 : 1.5,
        line_alpha: 0.95,
      }),
    );
    price.scatter({
      x: field("x"), y: field("y"), source: sources.late, marker: "triangle", size: 9,
      fill_color: palette.revised, line_color: palette.panel,
    });
    price.scatter({
      x: field("x"), y: field("y"), source: sources.healed, marker: "diamond", size: 11,
      fill_color: palette.healed, line_color: palette.panel,
    });
    const volume = figure({
      caption: "volume by side", y_range: new B.Range1d({ start: 0, end: 1 }), height: 116, sizing_mode: "stretch_width",
    });
    this.shade(volume, sources.gap, palette.gap, "right_diagonal_line");
    this.shade(volume, sources.partial, palette.partial, "dot");
    const stacked = (bottom, top, color) =>
      volume.vbar({
        x: field("x"), bottom, top: field(top), width: field("width"), source: sources.bars,
        fill_color: color, line_color: null, fill_alpha: 0.85,
      });
    stacked(0, "buy", palette.up);
    stacked(field("buy"), "sold", palette.down);
    stacked(field("sold"), "total", palette.neutral);
    const imbalance = figure({
      caption: "imbalance of five levels", y_range: new B.Range1d({ start: -1, end: 1 }), height: 134, sizing_mode: "stretch_width",
    });
    const side = (name, color) =>
      imbalance.varea({
        x: field("x"), y1: 0, y2: field(name), source: sources.imbalance, fill_color: color,
        fill_alpha: 0.6,
      });
    side("positive", palette.up);
    side("negative", palette.down);
    const plots = [price, volume, imbalance];
    plots.forEach((plot, index) => this.dress(plot, index === plots.length - 1));
    volume.right[0].formatter = new B.NumeralTickFormatter({ format: "0.[00]a" });
    volume.right[0].ticker.desired_num_ticks = 2;
    imbalance.right[0].ticker = new B.FixedTicker({ ticks: [-1, 0, 1] });
    const whole = new B.Column({ children: plots, sizing_mode: "stretch_both", spacing: 0 });
    this.host.replaceChildren();
    const view = await B.Plotting.show(whole, this.host);
    this.made = { x, price, volume, sources, bands, view };
  }

  shade(plot, source, color, pattern) {
    const box = plot.quad({
      left: field("left"), right: field("right"), bottom: -1e30, top: 1e30, source,
      fill_color: color, fill_alpha: 0.08, line_color: null, hatch_pattern: pattern,
      hatch_color: color, hatch_alpha: pattern === "dot" ? 0.4 : 0.8, hatch_scale: pattern === "dot" ? 6 : 9, hatch_weight: 1.2,
    });
    box.level = "underlay";
    return box;
  }

  dress(plot, withTimes) {
    const { palette } = this;
    for (const grid of plot.center) {
      grid.grid_line_color = palette.grid;
      grid.grid_line_width = 1;
    }
    for (const axis of [...plot.below, ...plot.right]) {
      axis.axis_line_color = null;
      axis.major_tick_line_color = null;
      axis.minor_tick_line_color = null;
      axis.major_label_text_color = palette.text;
      axis.major_label_text_font = FONT;
      axis.major_label_text_font_size = "11px";
    }
    plot.right[0].formatter = new Bokeh.NumeralTickFormatter({ format: "0,0.[000000]" });
    plot.below[0].visible = withTimes;
    plot.below[0].formatter = new Bokeh.DatetimeTickFormatter({
      milliseconds: "%H:%M:%S", seconds: "%H:%M:%S", minsec: "%H:%M:%S", minutes: "%H:%M",
      hourmin: "%H:%M", hours: "%H:%M", days: "%b %d", months: "%b %Y", years: "%Y",
    });
  }

  fill(series, chosen, windows) {
    const { x, price, volume, sources, bands } = this.made;
    const bars = columns.newestBars(series, chosen.bars);
    const lengthMs = chosen.lengthMs;
    this.bars = bars;
    this.lengthMs = lengthMs;
    const newest = bars.length ? bars[bars.length - 1].ts_start + lengthMs : Date.now();
    const lastPoint = Math.max(newest, ...Object.values(series.vwaps).map(lastTime), lastTime(series.imbalance));
    const fromMs = Math.min(
      bars.length ? bars[0].ts_start : Infinity,
      lastPoint - Math.max(bars.length, 15) * lengthMs,
    );
    const barColumns = columns.barColumns(bars, lengthMs, this.palette);
    const lines = windows.map((window) =>
      columns.lineColumns(series.vwaps[window] || new Map(), fromMs),
    );
    const banded = windows.indexOf(BANDED) >= 0 ? windows.indexOf(BANDED) : windows.length - 1;
    bands.forEach((band, index) => {
      band.visible = chosen.bands && index === banded;
    });
    const [low, high] = columns.priceRange(barColumns, [
      ...lines.map((line) => line.y),
      ...(chosen.bands ? [lines[banded].upper, lines[banded].lower] : []),
    ]);
    const lift = (high - low) * 0.03;
    sources.bars.data = barColumns;
    sources.gap.data = columns.shadeColumns(bars, "gap", lengthMs);
    sources.partial.data = columns.shadeColumns(bars, "partial", lengthMs);
    sources.late.data = columns.markColumns(bars, columns.revisedLater, lengthMs, lift);
    sources.healed.data = columns.markColumns(bars, columns.healed, lengthMs, lift * 2);
    lines.forEach((line, index) => {
      sources.lines[index].data = line;
    });
    sources.imbalance.data = columns.imbalanceColumns(series.imbalance, fromMs);
    const width = lastPoint - fromMs;
    x.setv({ start: fromMs - lengthMs * 0.5, end: lastPoint + Math.max(lengthMs * 0.7, width * 0.01) });
    price.y_range.setv({ start: low, end: high });
    let most = 0;
    for (const total of barColumns.total) most = Math.max(most, total);
    volume.y_range.setv({ start: 0, end: most * 1.08 || 1 });
  }

  /** The bar at a place of the host, and where its middle is; null without one. */
  barAt(clientX) {
    if (!this.made || !this.bars.length) return null;
    const view = this.made.view.child_views[0];
    const box = this.host.getBoundingClientRect();
    const frame = view.frame.bbox;
    const sx = clientX - box.left;
    if (sx < frame.left || sx > frame.right) return null;
    const time = view.frame.x_scale.invert(sx);
    let best = this.bars[0];
    for (const bar of this.bars) {
      if (bar.ts_start <= time) best = bar;
    }
    const middle = view.frame.x_scale.compute(best.ts_start + this.lengthMs / 2);
    return { bar: best, left: middle };
  }
}

function lastTime(points) {
  let last = 0;
  for (const point of points.values()) last = Math.max(last, point[1]);
  return last;
}
