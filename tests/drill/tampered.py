"""What a drill left, tampered with: for each check of the oracle a change that it must notice."""

from collections import Counter
from dataclasses import replace

from evidence import RAW, Ended, VendorTrade
from gaps import LATENCY_MS, excused
from oracle import CHECKS

from processors.engine import journal
from processors.kernels.numbered_pairs import pairs_in

VWAP, BARS, RAW_TRADE = "infoway.vwap.10s", "infoway.bars.1s", RAW[0]


def without(seen, logs, topic, chosen):
    """Return the evidence without the first record of a topic that is chosen."""
    found = getattr(seen, logs)
    for partition, log in found[topic].items():
        for place, message in enumerate(log):
            if chosen(message):
                shorter = {**found[topic], partition: [*log[:place], *log[place + 1 :]]}
                return replace(seen, **{logs: {**found, topic: shorter}})
    raise AssertionError("nothing is chosen")


class Changed:
    """A record with another value."""

    def __init__(self, message, value):
        self._message, self._value = message, value

    def key(self):
        return self._message.key()

    def value(self):
        return self._value


def without_keys(seen, agent, *starts):
    """Return the evidence without what an agent's state holds under keys that begin so."""

    def left(message):
        if not message.key().startswith(journal.PREFIX):
            return message
        pairs = [
            (key, value)
            for key, value in pairs_in(message.value(), journal._HEAD.size)
            if not key.startswith(starts)
        ]
        head = message.value()[: journal._HEAD.size]
        return Changed(message, head + b"".join(journal._encoded(pairs)))

    states = {
        partition: [left(message) for message in log]
        for partition, log in seen.states[agent].items()
    }
    return replace(seen, states={**seen.states, agent: states})


def doubled(seen, logs, topic):
    found = getattr(seen, logs)
    longer = {partition: [*log, *log[-1:]] for partition, log in found[topic].items()}
    return replace(seen, **{logs: {**found, topic: longer}})


def turned(seen, logs, topic):
    found = getattr(seen, logs)
    other = {partition: log[::-1] for partition, log in found[topic].items()}
    return replace(seen, **{logs: {**found, topic: other}})


def closed_at_revision_one_of_two(seen):
    last = Counter(
        {(row["symbol"], row["ts_start"]): row["revision"] for _, row in seen.rows[BARS]}
    )

    def chosen(message):
        row = seen.decoded(BARS, message)
        return row["revision"] == 1 and last[row["symbol"], row["ts_start"]] > 1

    return chosen


def a_trade_that_counts(seen):
    """Choose a trade amid those of its symbol."""
    trades = next(trades for trades in seen.accepted.values() if len(trades) > 50)
    wanted = trades[len(trades) // 2][0]
    return lambda message: message is wanted


def a_trade_in_no_gap(seen):
    """Choose a trade amid those of its connection, far from every gap of its feed."""
    gaps = excused(seen)
    rows = sorted(
        (row["feed"], row["connection"], row["sequence"], row["ts_recv"] // 1000, topic, place)
        for topic, found in seen.raw_rows.items()
        for place, (_, row) in enumerate(found)
    )
    for before, (feed, connection, number, _, topic, place), after in zip(
        rows, rows[1:], rows[2:], strict=False
    ):
        around = (feed, connection, number - 1), (feed, connection, number + 1)
        if (
            topic == RAW_TRADE
            and (before[:3], after[:3]) == around
            and not any(
                name == feed and start - LATENCY_MS <= after[3] and before[3] <= end
                for name, start, end in gaps
            )
        ):
            wanted = seen.raw_rows[topic][place][0]
            return lambda message: message is wanted
    raise AssertionError("no trade lies in no gap")


def a_lost_trade(seen):
    """Return a trade that the vendor made while the symbol was observed."""
    symbol, trades = next(iter(seen.accepted.items()))
    _, row = trades[3]
    return VendorTrade(row["ts_recv"] // 1000, symbol, row["ts_event"], "1.23", "4.56")


TAMPERED = {
    "A": lambda seen: without(seen, "raw", RAW_TRADE, a_trade_that_counts(seen)),
    "B": lambda seen: without(seen, "committed", BARS, closed_at_revision_one_of_two(seen)),
    "C": lambda seen: without(seen, "committed", VWAP, lambda message: True),
    "D": lambda seen: without(seen, "raw", RAW_TRADE, a_trade_in_no_gap(seen)),
    "E": lambda seen: turned(seen, "raw", RAW_TRADE),
    "F": lambda seen: replace(seen, offsets=dict.fromkeys(seen.offsets, 1)),
    "G": lambda seen: replace(seen, ledger=[*seen.ledger, a_lost_trade(seen)]),
    "I": lambda seen: doubled(seen, "committed", VWAP),
    "J": lambda seen: without_keys(seen, "vwap", b"symbol:", b"head:"),
    "K": lambda seen: replace(seen, stable={("topic", 0): (1, 2)}),
    "L": lambda seen: replace(seen, ended=[Ended(1.0, "w0", 78, "the state does not fit", False)]),
}


def blind(seen, recomputed):
    """Return the letters of the checks that find nothing wrong in evidence tampered with."""
    found = [
        letter
        for letter, tamper in TAMPERED.items()
        if next(CHECKS[letter](tamper(seen), recomputed), None) is None
    ]
    computation, _ = recomputed.agents["vwap"]
    load = computation.load
    # a state that comes back different is another replay
    computation.load = lambda partition, entries: load(partition, {})
    try:
        if next(CHECKS["H"](seen, recomputed), None) is None:
            found.append("H")
    finally:
        computation.load = load
    return found
