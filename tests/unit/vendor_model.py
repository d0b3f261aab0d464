"""A vendor without sockets, and the feeds of a producer before it: requests and answers may stand
still, be lost or refused, connections are cut, symbols move. Each trade is made once, so that one
that counts twice shows."""

import json
import random
import threading
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

from infra.ingest.delivered import DeliveredTrade, last_minute
from producers.feed.outputs import Publication
from producers.feed.protocol import FeedProtocol
from producers.feed.settings import FeedSettings
from producers.feed.states import State
from producers.transport.feed_group import RunningFeeds, _Running
from producers.vendor.symbols import Feed
from schemas.records import DeadLetterRecord, RawTradeRecord

START, SECOND = 1_800_000_000_000_000, 1_000_000
TOPICS = {"infoway.raw.trade": 2, "infoway.raw.depth": 2, "infoway.raw.kline": 2}
SUBSCRIBE = {10000: "trade", 10003: "depth", 10006: "kline"}
UNSUBSCRIBE = {11000: "trade", 11001: "depth", 11002: "kline"}
SYMBOLS = ("A", "B", "C")
STALLS = tuple(seconds * SECOND for seconds in (1, 4, 7, 12, 30))


@dataclass(frozen=True)
class World:
    """What may happen, each as a chance a step."""

    feeds: int = 2
    stalls: float = 0.02
    """That the vendor reads nothing for a while; or that nothing of it arrives."""
    cuts: float = 0.01
    changes: float = 0.03
    lost: float = 0.0
    """That a request gets no answer, taken or not."""
    refused: float = 0.0
    """That an unsubscription is refused."""
    restarts: float = 0.0


@dataclass
class Connection:
    """The vendor's side of a connection."""

    requests: deque = field(default_factory=deque)
    sent: deque = field(default_factory=deque)
    subscribed: dict = field(default_factory=lambda: defaultdict(set))
    reads_again_at: int = 0
    arrives_again_at: int = 0


class Idle:
    """A feed's thread that does nothing: the model does its work."""

    alive = False

    def start(self):
        self.alive = True

    def is_alive(self):
        return self.alive

    def join(self):
        pass


class Feeds(RunningFeeds):
    """The feeds of a producer, stepped by the model."""

    def _prepared(self, protocol):
        return _Running(protocol, threading.Event(), Idle())


class Model:
    """A vendor and a producer, by a seed."""

    def __init__(self, seed, world):
        self.chance, self.world = random.Random(seed), world
        self.now, self.made, self.last = START, 0, {}
        self.counted, self.log = Counter(), defaultdict(list)
        self.received = self.published = self.letters = 0
        self.wrong_repeats = []
        self.plan = self.any_plan()
        self.start()

    def any_plan(self):
        symbols = [[] for _ in range(self.world.feeds)]
        for symbol in SYMBOLS:
            if self.chance.random() > 0.2:
                self.chance.choice(symbols).append(symbol)
        return [
            Feed(f"f{number}", "crypto", tuple(each))
            for number, each in enumerate(symbols)
            if each or self.chance.random() < 0.5
        ]

    def start(self):
        """A new process, which knows what the topic has."""
        before = {symbol: last_minute(trades) for symbol, trades in self.log.items()}
        settings = FeedSettings("simulated", klines=(), delivered_before=before.get)

        def make(feed, counters):
            return FeedProtocol(feed, settings, TOPICS, counters, random.Random(1))

        stop = threading.Event()
        self.feeds = Feeds(self.plan, make, None, None, stop, self.chance, before)
        for each in self.feeds._running.values():
            each.thread.start()
        self.connections, self.down_until = {}, {}

    def run(self, steps):
        for _ in range(steps):
            self.step()

    def step(self):
        chance, world = self.chance, self.world
        self.now += chance.choice((50_000, 200_000, 500_000, SECOND))
        for symbol in SYMBOLS:
            if chance.random() < 0.3:
                self.trade(symbol)
        if chance.random() < world.changes:
            self.plan = self.any_plan()
            self.feeds.change(self.plan)
        if chance.random() < world.restarts:
            self.start()
            return
        self.feeds._step()
        for name, each in list(self.feeds._running.items()):
            if each.thread.alive:
                self.feed(name, each)

    def feed(self, name, each):
        protocol, connection = each.protocol, self.connections.get(name)
        if connection is not None:
            self.vendor(connection)
        if each.stop.is_set():
            self.take(protocol.ended(self.now, self.now)[0])
            each.thread.alive = False
            self.connections.pop(name, None)
            return
        if protocol.state is State.OPEN and self.chance.random() < self.world.cuts:
            self.cut(name, protocol)
            return
        if protocol.wanted_symbols is not protocol.feed.symbols:
            self.take(protocol.apply_wanted_symbols(self.now))
        if protocol.state is State.DOWN:
            if self.now >= self.down_until.get(name, 0):
                self.connections[name] = Connection()
                self.take(protocol.connected(self.now))
            return
        for send in protocol.frames_to_send(self.now):
            if send.opcode == "text":
                connection.requests.append(json.loads(send.payload))
            elif self.now >= connection.reads_again_at:
                self.take(protocol.pong(self.now))
        if self.now >= connection.arrives_again_at:
            self.arrive(protocol, connection)
        else:
            protocol.tick(self.now)
        if protocol.state is State.BROKEN:
            self.cut(name, protocol)

    def vendor(self, connection):
        if self.chance.random() < self.world.stalls:
            connection.reads_again_at = self.now + self.chance.choice(STALLS)
        if self.chance.random() < self.world.stalls:
            connection.arrives_again_at = self.now + self.chance.choice(STALLS)
        while connection.requests and self.now >= connection.reads_again_at:
            self.answer(connection, connection.requests.popleft())

    def answer(self, connection, request):
        code = request["code"]
        if code == 10010 or self.chance.random() < self.world.lost / 2:
            return
        symbols = request["data"]["codes"].split(",")
        answers = []
        if code in SUBSCRIBE:
            connection.subscribed[SUBSCRIBE[code]].update(symbols)
            answers.append({"code": code + 1})
        elif self.chance.random() < self.world.refused:
            answers.append({"code": 506, "msg": "no"})
        else:
            connection.subscribed[UNSUBSCRIBE[code]].difference_update(symbols)
            answers.append({"code": 11010})
        if self.chance.random() >= self.world.lost / 2:
            connection.sent.extend({**each, "trace": request["trace"]} for each in answers)
        if code == 10000:
            connection.sent.extend(self.last[each] for each in symbols if each in self.last)

    def trade(self, symbol):
        self.made += 1
        data = {"s": symbol, "t": self.now // 1000, "p": f"{self.made}", "v": "1", "td": 1}
        push = self.last[symbol] = {"code": 10002, "data": {**data, "vw": data["p"]}}
        for connection in self.connections.values():
            if symbol in connection.subscribed["trade"]:
                connection.sent.append(push)

    def arrive(self, protocol, connection):
        for _ in range(self.chance.choice((1, 3, 100))):
            if not connection.sent or protocol.state is not State.OPEN:
                return
            frame = connection.sent.popleft()
            self.received += frame["code"] == 10002
            self.take(protocol.receive(json.dumps(frame).encode(), self.now))

    def cut(self, name, protocol):
        self.connections.pop(name, None)
        self.take(protocol.disconnected(self.now, "lost", self.now))
        self.down_until[name] = self.now + self.chance.choice((0, 1, 5, 20)) * SECOND

    def take(self, outputs):
        for record in (each.record for each in outputs if isinstance(each, Publication)):
            self.letters += isinstance(record, DeadLetterRecord)
            if not isinstance(record, RawTradeRecord):
                continue
            self.published += 1
            if record.repeat and not self.counted[record.price]:
                self.wrong_repeats.append(record.price)
            self.counted[record.price] += not record.repeat
            trade = record.ts_event, record.price, record.volume, record.direction
            self.log[record.symbol].append(
                DeliveredTrade(
                    record.connection, record.sequence, record.ts_recv, trade, record.repeat
                )
            )
