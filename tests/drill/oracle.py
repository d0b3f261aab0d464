"""What must hold after any drill, judged from what the topics hold and how the processes ended:
twelve checks, A to L. Knows neither the engine nor which faults struck."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import reference
from evidence import DEAD_LETTER, RAW, RECONCILIATION, Evidence
from gaps import holes
from losses import gaps_are_the_losses
from recompute import APPLIED, Recomputation, by_topic, settle
from reconciled import differences, revisions

from infra.runtime.exit_codes import may_restart
from processors.model.intervals import ladder
from processors.model.records import Trade
from schemas.decimals import to_units

STABLE_WITHIN_S, LAG_WITHIN_S = 15.0, 60.0
SHOWN = 5
"""Violations that a check reports at most."""
SAMPLED = 40
"""VWAP records of a symbol that are held against the slow reference."""


def judge(evidence: Evidence, recomputed: Recomputation) -> dict[str, list[str]]:
    """Return the violations by the letter of the check, of those that found any."""
    found: dict[str, list[str]] = {}
    for letter, check in CHECKS.items():
        if violations := [each for _, each in zip(range(SHOWN), check(evidence, recomputed))]:  # noqa: B905
            found[letter] = violations
    return found


def bars_are_their_trades(seen: Evidence, _: Recomputation) -> Iterator[str]:
    """A: a closed bar of trades is the slow reference's of the accepted trades, its volume
    included; a healed bar is its kline."""
    lengths = {each.name: each.length_ms for each in ladder(seen.names.intervals).intervals}
    klines = {
        (message.key(), control.kline)
        for message, control in seen.controls(RAW[0])
        if control.kind == "heal"
    }
    for interval, length in lengths.items():
        if interval == "1d":
            continue  # the market's session: not epoch-aligned
        last = {
            (row["symbol"], row["ts_start"]): row
            for _, row in seen.rows[f"infoway.bars.{interval}"]
        }
        expected = {
            symbol: reference.bars([_trade(m.offset(), row) for m, row in trades], length)
            for symbol, trades in seen.accepted.items()
        }
        for (symbol, start), bar in last.items():
            if bar["provenance"] == "klines":
                if not any(
                    key == symbol.encode() and _is(kline, interval, bar) for key, kline in klines
                ):
                    yield f"{interval} {symbol} {start}: healed by no kline of the log"
            elif bar["provenance"] == "trades" and bar["is_closed"]:
                want = expected.get(symbol, {}).get(start)
                names = ("open", "high", "low", "close", "volume", "turnover", "trade_count")
                wrong = [n for n in names if want is None or bar[n] != want[n]]
                if wrong:
                    yield f"{interval} {symbol} {start}: {', '.join(wrong)} differ from its trades"


def revisions_count_up(seen: Evidence, _: Recomputation) -> Iterator[str]:
    """B: revisions of a bar, and of its comparison with a kline, are 1, 2, 3 in log order."""
    yield from revisions(seen)
    for interval in seen.names.intervals:
        last: Counter[tuple[str, int]] = Counter()
        for _message, row in seen.rows[f"infoway.bars.{interval}"]:
            key = row["symbol"], row["ts_start"]
            if row["revision"] != last[key] + 1:
                yield f"{interval} {key}: revision {row['revision']} follows {last[key]}"
            last[key] = row["revision"]


def figures_are_the_recomputation(seen: Evidence, recomputed: Recomputation) -> Iterator[str]:
    """C: every derived record equals the recomputation, byte for byte and in order; VWAPs equal
    the slow reference too; a comparison shows the bar and the kline that it names."""
    yield from differences(seen)
    partitions = sorted(seen.raw[RAW[0]])
    for partition in partitions:
        want: dict[str, list[tuple[bytes, bytes]]] = defaultdict(list)
        for agent in recomputed.agents:
            for rows in recomputed.rows(agent, partition, batch=1):
                for topic, key, value in map(recomputed.encoded, rows):
                    want[topic].append((key, value))
        for topic in RAW:
            for _, key, value in recomputed.dead_letters(topic, partition):
                want[DEAD_LETTER].append((key, value))
        for topic in seen.committed:
            if topic == RECONCILIATION:
                continue
            have = by_topic(seen.committed, topic, partition)
            if topic == DEAD_LETTER:
                have, want[topic] = (settle(seen.letters(found)) for found in (have, want[topic]))
            if have != want[topic]:
                yield f"{topic}[{partition}]: {_difference(want[topic], have)}"
    yield from _vwaps_differ(seen)


def received_is_accounted_for(seen: Evidence, _: Recomputation) -> Iterator[str]:
    """D: nothing received is uncounted at any moment, nothing is in flight at the end, and the
    numbers within a connection have no hole but where a gap is on record."""
    latest: dict[str, dict[str, int]] = {}
    for sample in seen.samples:
        latest[sample.feed] = found = sample.counters
        counted = sum(found[n] for n in ("acknowledged", "dead_lettered", "spooled", "lost"))
        if found["received"] < counted:
            at = f"{sample.feed} at {sample.after_s:.0f} s"
            yield f"{at}: {counted} frames accounted for of {found['received']}"
    for feed, found in latest.items():
        counted = sum(found[n] for n in ("acknowledged", "dead_lettered", "lost"))
        if found["received"] != counted or found["spooled"]:
            yield f"{feed}: {found['received']} received, {counted} accounted for at the end"
    yield from holes(seen)


def order_per_key(seen: Evidence, _: Recomputation) -> Iterator[str]:
    """E: the numbers of a connection rise within a key, and derived records follow their
    sources."""
    for topic, rows in seen.raw_rows.items():
        numbers: dict[tuple[Any, ...], int] = {}
        for _message, row in rows:
            key = row["feed"], row["connection"], row["symbol"]
            if row["sequence"] <= numbers.get(key, 0):
                yield f"{topic} {key}: {row['sequence']} after {numbers[key]}"
            numbers[key] = row["sequence"]
    for topic, rows in seen.rows.items():
        if topic in (RECONCILIATION, DEAD_LETTER):
            continue
        offsets: dict[tuple[int, bytes], int] = {}
        for message, row in rows:
            at = message.partition(), message.key()
            if row["source_offset"] < offsets.get(at, -1):
                yield f"{topic} {at}: source offset {row['source_offset']} after {offsets[at]}"
            offsets[at] = row["source_offset"]


def lag_is_zero(seen: Evidence, _: Recomputation) -> Iterator[str]:
    """F: the group has read everything, soon after the load ended."""
    if seen.lag_after_s is None or seen.lag_after_s > LAG_WITHIN_S:
        yield f"the lag was not 0 within {LAG_WITHIN_S:.0f} s: {seen.lag_after_s}"
    for topic in RAW:
        for partition, log in seen.raw[topic].items():
            end = log[-1].offset() + 1 if log else 0
            if (done := seen.offsets.get((seen.names.name(topic), partition), 0)) < end:
                yield f"{topic}[{partition}]: {end - done} records are not applied"


def a_replay_is_the_same(seen: Evidence, recomputed: Recomputation) -> Iterator[str]:
    """H: a second replay of the raw log, in other batches and through restarts, gives the same
    rows."""
    for agent, (_, topic) in recomputed.agents.items():
        for partition in sorted(seen.raw[topic]):
            first = [row for rows in recomputed.rows(agent, partition, 1) for row in rows]
            second = [row for rows in recomputed.rows(agent, partition, 37, 1) for row in rows]
            if first != second:
                yield f"{agent}[{partition}]: {_difference(first, second)}"


def each_output_once(seen: Evidence, _: Recomputation) -> Iterator[str]:
    """I: a read_committed consumer sees no output twice; what others see beside that are its
    byte-identical repeats."""
    for topic in seen.committed:
        if topic == DEAD_LETTER:
            continue
        for partition in seen.committed[topic]:
            committed = Counter(by_topic(seen.committed, topic, partition))
            if doubled := sum(count - 1 for count in committed.values()):
                yield f"{topic}[{partition}]: {doubled} outputs twice"
            if topic == RECONCILIATION:
                continue  # what was aborted may have joined bars and klines in another order
            others = set(by_topic(seen.uncommitted, topic, partition)) - committed.keys()
            if others:
                yield f"{topic}[{partition}]: {len(others)} uncommitted records that none equals"


def state_gives_the_outputs(seen: Evidence, recomputed: Recomputation) -> Iterator[str]:
    """J: from the state at a committed offset the log gives the outputs that follow, and the
    outputs before it are there."""
    chance = random.Random(0)
    for agent, (_, topic) in recomputed.agents.items():
        applied_key = APPLIED + seen.names.name(topic).encode()
        for partition, log in seen.states[agent].items():
            places = [n for n, message in enumerate(log) if message.key() == applied_key]
            if places and int(log[places[-1]].value()) != len(recomputed.records[topic, partition]):
                yield f"{agent}[{partition}]: applied is {log[places[-1]].value()!r} at the end"
            by_record = list(recomputed.rows(agent, partition, 1))
            for place in sorted(chance.sample(places, min(6, len(places)))):
                entries = {m.key(): m.value() for m in log[: place + 1]}
                live = {key: value for key, value in entries.items() if value is not None}
                start = int(log[place].value())
                want = [row for rows in by_record[start : start + 1500] for row in rows]
                try:
                    have = recomputed.from_state(agent, partition, live, start, 1500)
                except Exception as error:  # noqa: BLE001 what a wrong state breaks is not known
                    yield f"{agent}[{partition}] from {start}: the state cannot be used: {error!r}"
                    continue
                if have != want:
                    yield f"{agent}[{partition}] from {start}: {_difference(want, have)}"


def no_transaction_stays_open(seen: Evidence, _: Recomputation) -> Iterator[str]:
    """K: the stable offset reaches the end soon after the last fault."""
    if seen.stable_after_s is None or seen.stable_after_s > STABLE_WITHIN_S:
        yield f"transactions were open for more than {STABLE_WITHIN_S:.0f} s: {seen.stable_after_s}"
    for at, (stable, high) in seen.stable.items():
        if stable < high:
            yield f"{at}: stable up to {stable} of {high}"


def every_process_goes_on(seen: Evidence, _: Recomputation) -> Iterator[str]:
    """L: a process that ended may be started again, and those that run at the end wait for
    nothing."""
    for end in seen.ended:
        if end.code != 0 and not may_restart(end.code) and not end.expected:
            yield f"{end.process} ended at {end.after_s:.0f} s with {end.code}: {end.words}"
    yield from seen.unready


Check = Callable[[Evidence, Recomputation], Iterator[str]]
CHECKS: dict[str, Check] = {
    "A": bars_are_their_trades,
    "B": revisions_count_up,
    "C": figures_are_the_recomputation,
    "D": received_is_accounted_for,
    "E": order_per_key,
    "F": lag_is_zero,
    "G": lambda seen, _: gaps_are_the_losses(seen),
    "H": a_replay_is_the_same,
    "I": each_output_once,
    "J": state_gives_the_outputs,
    "K": no_transaction_stays_open,
    "L": every_process_goes_on,
}


def _vwaps_differ(seen: Evidence) -> Iterator[str]:
    chance = random.Random(0)
    spans = {"1s": 1_000, "10s": 10_000, "1m": 60_000}
    for window in seen.names.windows:
        rows = seen.rows[f"infoway.vwap.{window}"]
        if window not in spans:
            continue
        for _message, row in chance.sample(rows, min(SAMPLED, len(rows))):
            trades = [
                _trade(m.offset(), trade)
                for m, trade in seen.accepted[row["symbol"]]
                if m.offset() <= row["source_offset"]
            ]
            want = reference.rolling_vwap(trades, spans[window])
            wrong = [name for name, value in want.items() if row[name] != value]
            if wrong:
                at = f"{row['symbol']} after offset {row['source_offset']}"
                yield f"vwap.{window} {at}: {', '.join(wrong)} differ from the reference"


def _trade(offset: int, row: dict[str, Any]) -> Trade:
    return Trade(
        offset,
        row["symbol"],
        row["ts_event"],
        to_units(row["price"]),
        to_units(row["volume"]),
        row["direction"],
        row["trade_type"],
        row["repeat"],
        row["business"],
        row["feed"],
        row["connection"],
        row["ts_recv"],
        row["source"],
    )


def _is(kline: str | None, interval: str, bar: dict[str, Any]) -> bool:
    found = orjson.loads(kline or "{}")
    if (found.get("interval"), found.get("ts_start")) != (interval, bar["ts_start"]):
        return False
    return all(to_units(found[name]) == bar[name] for name in ("open", "high", "low", "close"))


def _difference(want: list[Any], have: list[Any]) -> str:
    if len(want) == len(have) and sorted(map(repr, want)) == sorted(map(repr, have)):
        return f"{len(want)} in another order"
    wanted, found = Counter(map(repr, want)), Counter(map(repr, have))
    lost, extra = (wanted - found).total(), (found - wanted).total()
    return f"{lost} missing, {extra} too many of {len(want)}"
