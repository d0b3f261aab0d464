"""What holds of `infoway.reconciliation` however its two sources were read side by side: which of a
bar and its kline comes first decides which records lie before the last one, so no recomputation can
give them byte for byte."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from evidence import RAW, RECONCILIATION, Evidence

from schemas.decimals import to_units

FIGURES = ("open", "high", "low", "close", "volume", "turnover")


def revisions(seen: Evidence) -> Iterator[str]:
    """Yield the comparisons of a bar whose revisions are not 1, 2, 3 in log order."""
    last: Counter[tuple[str, str, int]] = Counter()
    for _message, row in seen.rows[RECONCILIATION]:
        key = row["symbol"], row["interval"], row["ts_start"]
        if row["revision"] != last[key] + 1:
            yield f"reconciliation {key}: revision {row['revision']} follows {last[key]}"
        last[key] = row["revision"]


def differences(seen: Evidence) -> Iterator[str]:
    """Yield the comparisons that differ from the bar and the kline whose offsets they name."""
    bars = {
        (interval, message.partition(), message.offset()): row
        for interval in seen.names.intervals
        for message, row in seen.rows[f"infoway.bars.{interval}"]
    }
    # the vendor's REST too, by which gaps are healed
    klines = {
        (partition, message.offset()): seen.decoded(RAW[2], message)
        for partition, log in seen.raw[RAW[2]].items()
        for message in log
    }
    for _message, row in seen.rows[RECONCILIATION]:
        at = f"reconciliation {row['symbol']} {row['interval']} {row['ts_start']}"
        partition = row["source_partition"]
        if row["bar_offset"] is not None:
            bar = bars.get((row["interval"], partition, row["bar_offset"]))
            ours = {name: row[name] for name in (*FIGURES, "symbol", "ts_start", "completeness")}
            ours["revision"] = row["bar_revision"]
            if wrong := _different(ours, bar):
                yield f"{at}: not the bar at offset {row['bar_offset']}: {wrong}"
        if row["kline_offset"] is not None:
            kline = klines.get((partition, row["kline_offset"]))
            theirs = {name: row[f"vendor_{name}"] for name in FIGURES}
            found = kline and {name: to_units(kline[name]) for name in FIGURES}
            if wrong := _different(theirs, found):
                yield f"{at}: not the kline at offset {row['kline_offset']}: {wrong}"


def _different(shown: dict[str, Any], other: dict[str, Any] | None) -> str:
    if other is None:
        return "there is none"
    wrong = [name for name, value in shown.items() if value != other[name]]
    return ", ".join(f"{name} {shown[name]} for {other[name]}" for name in wrong)
