"""Makes the pictures of the live page: `make screenshots`. Two hours of made-up markets are written
to the topics of an embedded stack, with a gap, a heal and late trades, and shown by the real
server in a real browser."""

import io
import random
import sys
import tempfile
import time
from pathlib import Path

from page_records import MINUTE, Writer, imbalance, status, vwap
from PIL import Image
from playwright.sync_api import sync_playwright

from infra.embedded.stack import Stack

sys.path.insert(0, str(Path(__file__).parents[1]))
from page.conftest import MISSING, Dashboard, chromium_of, evaluate, wait_until

BARS = 120
MARKETS = {
    "BTCUSDT": (11_849_984, 2, 2600, "1.25"),
    "ETHUSDT": (372_415, 2, 180, "14.2"),
    "SOLUSDT": (17_642, 2, 14, "310"),
    "XRPUSDT": (24_817, 4, 16, "5200"),
    "DOGEUSDT": (20_134, 5, 18, "88000"),
    "00700.HK": (52_320, 2, 30, "5400"),
    "00005.HK": (9_855, 2, 6, "12400"),
    "09988.HK": (12_640, 2, 10, "9100"),
    "600519.SH": (146_200, 2, 60, "300"),
    "002594.SZ": (32_988, 2, 22, "1800"),
    "AAPL.US": (21_033, 2, 9, "2100"),
    "NVDA.US": (17_841, 2, 13, "6400"),
    "TSLA.US": (32_971, 2, 25, "3300"),
    "7203.JP": (254_300, 2, 120, "800"),
    "USDJPY": (148_480, 3, 24, "1000000"),
    "EURUSD": (116_530, 5, 12, "900000"),
    "XAUUSD": (335_120, 2, 90, "60"),
}
"""Price in units of its last digit, digits, greatest step of a minute, volume of a trade."""
FEED_OF = {".HK": "stock-1", ".SH": "stock-1", ".SZ": "stock-1", ".US": "stock-1"}
SHOTS = (
    ("page-dark", 1600, 940, "dark", "?symbol=BTCUSDT&bands=1", 58),
    ("page-light", 1600, 940, "light", "?symbol=BTCUSDT", None),
    ("page-narrow", 430, 1180, "dark", "?symbol=BTCUSDT&bars=60", None),
)
"""Name, width, height, theme, query, and the bar that is pointed at, from the newest."""


def text(units, digits):
    """A price in units of its last digit as a decimal."""
    whole, fraction = divmod(units, 10**digits)
    return f"{whole}.{fraction:0{digits}d}".rstrip("0").rstrip(".")


def market(writer, chance, symbol, start, offset):
    """Write two hours of a symbol; return its last price."""
    price, digits, step, size = MARKETS[symbol]
    spent, sold, wave = 0, 0, 0.0
    unit = float(size)
    closes = []
    for number in range(BARS):
        begin = start + number * MINUTE
        opened = price
        path = [opened]
        drift = chance.uniform(-0.35, 0.35)
        for _ in range(8):
            path.append(path[-1] + round(chance.gauss(drift, 0.8) * step / 3))
        price = path[-1]
        volume = round(unit * chance.uniform(6, 40), 4)
        buy = round(volume * min(0.9, max(0.1, 0.5 + (price - opened) / (6 * step))), 4)
        spent += sum(path) / len(path) * volume
        sold += volume
        newest = number == BARS - 1
        fields = {
            "symbol": symbol,
            "start": begin,
            "offset": offset + number * 10,
            "open": text(opened, digits),
            "high": text(max(path), digits),
            "low": text(min(path), digits),
            "close": text(price, digits),
            "volume": f"{volume:.4f}",
            "buy_volume": f"{buy:.4f}",
            "sell_volume": f"{volume - buy:.4f}",
            "vwap": text(round(sum(path) / len(path)), digits),
            "trade_count": chance.randint(80, 400),
            "completeness": "partial" if number == 0 else "complete",
            "ts_recv": (begin + MINUTE + 2_140) * 1000,
        }
        if newest:
            fields |= {"cause": "update", "is_closed": False, "revision": 31}
            fields |= {"ts_recv": (begin + 31_000) * 1000}
        writer.bar(**fields)
        if symbol == "BTCUSDT":
            corrections(writer, fields, number)
        closes.append(price)
        for quarter in range(4):
            ts = begin + quarter * 15_000 + 14_000
            if newest and quarter > 1:
                break
            at = path[quarter * 2 + 1]
            wave = 0.88 * wave + chance.gauss(0, 0.16)
            rolling = sum(closes[-2:]) + at
            figures = {"symbol": symbol, "ts": ts}
            mean = rolling // (len(closes[-2:]) + 1)
            writer.write("infoway.vwap.1m", vwap(value=text(mean, digits), **figures))
            last = [*closes[-12:], at]
            slow = text(sum(last) // len(last), digits)
            writer.write("infoway.vwap.5m", vwap(window="5m", value=slow, **figures))
            writer.write(
                "infoway.vwap.session",
                vwap(
                    window="session",
                    value=text(round(spent / sold), digits),
                    stdev=text(round(step * (1.2 + number / 60)), digits),
                    **figures,
                ),
            )
            writer.write(
                "infoway.depth.imbalance", book(chance, symbol, ts, at, digits, unit, wave)
            )
    return price


def corrections(writer, fields, number):
    """A gap of three bars of which two are healed, and two late trades."""
    known = fields["ts_recv"]
    later = {"offset": fields["offset"] + 4, "ts_recv": known + 41_000_000}
    gap = {"revision": 2, "cause": "gap", "completeness": "gap"}
    if number in (60, 61, 62, 102):
        writer.bar(**fields | later | gap)
    if number in (60, 61):
        healed = {
            "revision": 3,
            "cause": "healed",
            "completeness": "gap",
            "provenance": "klines",
            "offset": fields["offset"] + 6,
            "ts_recv": known + 95_000_000,
        }
        unknown = dict.fromkeys(("buy_volume", "sell_volume", "trade_count", "ts_first", "ts_last"))
        writer.bar(**fields | healed | unknown)
    if number in (38, 88):
        writer.bar(**fields | later | {"revision": 2, "cause": "late"})


def book(chance, symbol, ts, at, digits, unit, wave):
    """A book around a price; `wave` is its imbalance."""
    bid, ask = at - 1, at + 1
    bids, asks = unit * (1 + wave), unit * (1 - wave)
    return imbalance(
        symbol,
        ts,
        round(max(-0.95, min(0.95, wave)), 4),
        best_bid=text(bid, digits),
        best_ask=text(ask, digits),
        best_bid_size=f"{bids:.4f}",
        best_ask_size=f"{asks:.4f}",
        spread=text(ask - bid, digits),
        mid=text(at, digits),
        weighted_mid=text(at, digits),
        bid_volume_5=f"{bids * 4:.4f}",
        ask_volume_5=f"{asks * 4:.4f}",
        bid_volume_10=f"{bids * 9:.4f}",
        ask_volume_10=f"{asks * 8:.4f}",
        ofi=f"{unit * wave:.4f}",
    )


def write_all(writer, start):
    """Write every market, and the feeds' health."""
    chance = random.Random(11)
    day = 86_400_000
    feeds = {"crypto-1": [], "stock-1": [], "japan-1": [], "common-1": []}
    for index, symbol in enumerate(MARKETS):
        price, digits, step, _ = MARKETS[symbol]
        before = text(price - round(chance.uniform(-6, 8) * step), digits)
        closed = {"interval": "1d", "start": start - 2 * day, "length": day, "close": before}
        writer.bar(symbol=symbol, **closed)
        market(writer, chance, symbol, start, 1_000 + index)
        feed = FEED_OF.get(symbol[-3:], "crypto-1" if symbol.endswith("USDT") else "common-1")
        feeds["japan-1" if symbol.endswith(".JP") else feed].append(symbol)
    for feed, symbols in feeds.items():
        state = "degraded" if feed == "japan-1" else "healthy"
        writer.write("infoway.feed.status", status(state, symbols, feed, start), feed)
    writer.flush()


def live_on(writer):
    """Write a record more of each symbol: the stream does not stand still."""
    for symbol in MARKETS:
        price, digits, _, size = MARKETS[symbol]
        chance, ts = random.Random(price), int(time.time() * 1000)
        if symbol != "BTCUSDT":
            figures = book(
                chance, symbol, ts, price, digits, float(size), chance.uniform(-0.7, 0.7)
            )
            writer.write("infoway.depth.imbalance", figures)
    writer.flush()


def shoot(browser, dashboard, writer, folder):
    """Take every picture."""
    for name, width, height, theme, query, pointed in SHOTS:
        view = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
        view.goto(f"{dashboard.url}{query}")
        wait_until(lambda: evaluate(view, "page.charts.bars.length") >= 60)  # noqa: B023
        live_on(writer)
        wait_until(lambda: view.locator("#alarm").is_hidden())  # noqa: B023
        view.wait_for_timeout(800)
        live_on(writer)
        if pointed is not None:
            x = evaluate(
                view,
                "page.charts.host.getBoundingClientRect().left + page.charts.made.view"
                ".child_views[0].frame.x_scale.compute(page.charts.bars.at(-1 - "
                f"{pointed}).ts_start + page.charts.lengthMs / 2)",
            )
            box = view.locator("#chart").bounding_box()
            view.mouse.move(x, box["y"] + box["height"] * 0.28)
            view.wait_for_timeout(300)
        picture = Image.open(io.BytesIO(view.screenshot())).convert("RGB")
        path = folder / f"{name}.png"
        picture.quantize(255, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size >> 10} KiB")
        view.close()


def main(folder):
    """Write the pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, sync_playwright() as playwright:
        path = chromium_of(playwright)
        if path is None:
            sys.exit(MISSING)
        with Stack(Path(data)) as stack:
            windows = ("1m", "5m", "session")
            writer = Writer(stack, "", ("1m", "5m", "15m", "1h", "1d"), windows)
            dashboard = Dashboard(stack, writer.names)
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            try:
                # the newest bar is open, half a minute into it
                time.sleep((30 - time.time() % 60) % 60)
                start = (int(time.time() * 1000) // MINUTE - BARS + 1) * MINUTE
                write_all(writer, start)
                shoot(browser, dashboard, writer, folder)
            finally:
                browser.close()
                dashboard.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
