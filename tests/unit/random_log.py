"""Random logs for tests of any agent: feeds, moves, reconnects, repeats, late trades, gaps, heals,
outages of days."""

from random import Random

from processors.model.records import BarRevision, Book, ControlRecord, Heal, Kline, Trade
from schemas.control import KLINE_LENGTHS, Control
from schemas.decimals import UNIT

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
T = 19_676 * DAY
BUSINESSES = {"stock-1": "stock", "stock-2": "stock", "common-1": "common", "crypto-1": "crypto"}


class Script:
    """Writes a random log: its beginning is the same however long it gets."""

    def __init__(self, seed, businesses):
        self.chance = Random(seed)
        self.businesses = businesses
        self.connections = dict.fromkeys(businesses, 1)
        self.carriers = {}
        self.traded = []
        self.now = T
        self.offset = -1

    def step(self):
        self.offset += 1
        pauses = (0, 0, 7, 7, 900, 900, 5_000, 20_000, 20_000, 70_000, 70_000, 400_000)
        self.now += self.chance.choice(
            (HOUR, 5 * HOUR, DAY, 50 * HOUR) if self.chance.random() < 0.04 else pauses
        )

    def feed_of(self, symbol):
        feed = self.carriers.get(symbol)
        return (
            feed
            if feed and self.chance.random() < 0.9
            else self.chance.choice(list(self.businesses))
        )

    def origin(self, feed):
        received = self.now * 1000 + self.chance.randint(-900_000, 900_000)
        return self.businesses[feed], feed, f"{feed}-{self.connections[feed]}", received, "live"

    def trade(self, symbol, repeat):
        late = self.chance.choice(
            (0, 0, 0, 0, -400, 40, 5_000, 30_000, 59_000, 61_000, 62_000, 62_001, 300_000)
        )
        price, volume = (
            self.chance.randint(1, 9) * UNIT // self.chance.choice((1, 4)) for _ in range(2)
        )
        volume *= self.chance.random() < 0.95
        self.traded.append(self.now - late)
        where = self.origin(self.feed_of(symbol))
        return Trade(
            self.offset,
            symbol,
            self.now - late,
            price,
            volume,
            self.chance.randrange(3),
            None,
            repeat,
            *where,
        )

    def control(self, kind, symbol):
        feed = (
            self.chance.choice(list(self.businesses))
            if kind == "begin" or symbol is None
            else self.feed_of(symbol)
        )
        if kind == "begin":
            self.carriers[symbol] = feed
            self.connections[feed] += self.chance.random() < 0.3
        business, _, connection, received, source = self.origin(feed)
        known = kind in ("begin", "gap") and self.chance.random() < 0.7
        since = self.now - self.chance.choice((0, 10, 3_000, 100_000, HOUR, DAY)) if known else None
        whole = kind == "mark" or (kind in ("end", "gap") and self.chance.random() < 0.3)
        ts = self.now + self.chance.choice((0, 0, 0, -3_000, 3_000))
        control = Control(kind, feed, business, connection, source, ts, received, since)
        return ControlRecord(self.offset, None if whole else symbol, control)

    def heal(self, symbol):
        interval = self.chance.choice(("1m", "1m", "5m", "15m", "1h"))
        length = KLINE_LENGTHS[interval]
        near = self.chance.choice(self.traded[-20:] or [self.now]) + self.chance.choice(
            (0, 0, MINUTE, -MINUTE, -HOUR, -DAY)
        )
        start, prices = (
            near // length * length,
            sorted(self.chance.randint(1, 9) * UNIT for _ in range(4)),
        )
        figures = (
            (prices[1], prices[3], prices[0], prices[2]),
            self.chance.randint(0, 20) * UNIT,
            50 * UNIT,
        )
        return Heal(
            self.offset, symbol, interval, start, start + length, *figures, "stock", self.now * 1000
        )

    def book(self, symbol):
        levels = self.chance.choice((0, 1, 1, 2, 5))
        a, b = (
            [
                (
                    self.chance.randint(90, 100) * UNIT + side * 9 * UNIT,
                    self.chance.randint(0, 5) * UNIT,
                )
                for _ in range(levels)
            ]
            for side in self.chance.choice(((1, 0), (1, 0), (0, 1)))
        )
        return Book(self.offset, symbol, self.now, a, b, *self.origin(self.feed_of(symbol)))

    def kline(self, symbol):
        interval, start, prices = self.figures()
        volume = self.chance.randint(0, 3) * UNIT
        where = self.origin(self.feed_of(symbol))
        return Kline(
            self.offset, symbol, interval, start, prices, volume, 3 * volume, UNIT // 1000, *where
        )

    def bar(self, symbol):
        interval, start, prices = self.figures()
        volume, length = (
            self.chance.randint(1, 3) * UNIT,
            {"1m": MINUTE, "5m": 5 * MINUTE, "1d": DAY}[interval],
        )
        completeness = self.chance.choice(("complete", "complete", "gap"))
        rest = (
            self.chance.randint(1, 3),
            self.chance.random() < 0.9,
            completeness,
            "live",
            self.now * 1000,
        )
        return BarRevision(
            self.offset, symbol, interval, start, start + length, prices, volume, 3 * volume, *rest
        )

    def figures(self):
        interval = self.chance.choice(("1m", "1m", "5m", "1d"))
        length = {"1m": MINUTE, "5m": 5 * MINUTE, "1d": DAY}[interval]
        back = self.chance.choice((0, 0, 1, 1, 2, 60)) * length
        return (
            interval,
            (self.now - back) // length * length,
            (self.chance.randint(1, 2) * UNIT,) * 4,
        )


def log_of(name, seed, length):
    """Return a log of the topic that the agent of this name reads."""
    businesses = (
        {"crypto-1": "crypto", "common-1": "common"} if name == "reconciliation" else BUSINESSES
    )
    script = Script(seed, businesses)
    data = {"imbalance": ("book",), "reconciliation": ("kline", "bar")}.get(name, ("trade",))
    heals = 6 if data == ("trade",) else 0
    kinds = ("data", "repeat", "mark", "begin", "end", "gap", "heal")
    log = []
    for _ in range(length):
        script.step()
        (kind,) = script.chance.choices(kinds, (60, 3, 6, 8, 3, 5, heals))
        symbol = script.chance.choice("ABC")
        if kind == "heal":
            log.append(script.heal(symbol))
        elif kind in ("data", "repeat"):
            what = script.chance.choice(data)
            log.append(
                script.trade(symbol, kind == "repeat")
                if what == "trade"
                else getattr(script, what)(symbol)
            )
        else:
            log.append(script.control(kind, symbol))
    return log
