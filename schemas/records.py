"""One named record per schema of the contract; an encoder of the schema takes `*record`.

Values are physical: times are integers of the schema's unit, decimals integers in units of 10^-18,
dates days since 1970. The schema says what a field means, its unit, and when it is null.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class RawTradeRecord(NamedTuple):
    """A record of `raw_trade.avsc`."""

    symbol: str
    ts_event: int
    price: str
    volume: str
    turnover: str | None
    direction: int
    trade_type: str | None
    repeat: bool
    business: str
    feed: str
    connection: str
    sequence: int
    ts_recv: int
    source: str
    extra: str | None


class RawDepthRecord(NamedTuple):
    """A record of `raw_depth.avsc`."""

    symbol: str
    ts_event: int
    ask_prices: list[str]
    ask_volumes: list[str]
    bid_prices: list[str]
    bid_volumes: list[str]
    business: str
    feed: str
    connection: str
    sequence: int
    ts_recv: int
    source: str
    extra: str | None


class RawKlineRecord(NamedTuple):
    """A record of `raw_kline.avsc`."""

    symbol: str
    interval: str
    ts_start: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    turnover: str
    change: str | None
    change_percent: str | None
    business: str
    feed: str
    connection: str
    sequence: int
    ts_recv: int
    source: str
    extra: str | None


class BarRecord(NamedTuple):
    """A record of `bar.avsc`."""

    symbol: str
    interval: str
    ts_start: int
    ts_end: int
    trade_date: int | None
    open: int
    high: int
    low: int
    close: int
    volume: int
    turnover: int
    vwap: int | None
    buy_volume: int | None
    sell_volume: int | None
    trade_count: int | None
    ts_first: int | None
    ts_last: int | None
    revision: int
    is_closed: bool
    cause: str
    completeness: str
    provenance: str
    source: str
    ts_recv: int
    source_partition: int
    source_offset: int


class ActivityBarRecord(NamedTuple):
    """A record of `activity_bar.avsc`."""

    symbol: str
    kind: str
    threshold: int
    trade_date: int
    bar_index: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    turnover: int
    vwap: int | None
    buy_volume: int
    sell_volume: int
    trade_count: int
    ts_first: int
    ts_last: int
    revision: int
    is_closed: bool
    cause: str
    completeness: str
    source: str
    ts_recv: int
    source_partition: int
    source_offset: int


class VwapRecord(NamedTuple):
    """A record of `vwap.avsc`."""

    symbol: str
    window: str
    ts_event: int
    ts_start: int
    trade_date: int | None
    vwap: int | None
    volume: int
    turnover: int
    trade_count: int
    stdev: int | None
    completeness: str
    source: str
    ts_recv: int
    source_partition: int
    source_offset: int


class DepthImbalanceRecord(NamedTuple):
    """A record of `depth_imbalance.avsc`."""

    symbol: str
    ts_event: int
    best_bid: int | None
    best_bid_size: int | None
    best_ask: int | None
    best_ask_size: int | None
    spread: int | None
    mid: int | None
    weighted_mid: int | None
    imbalance_1: float | None
    imbalance_5: float | None
    imbalance_10: float | None
    imbalance_weighted: float | None
    bid_volume_5: int
    ask_volume_5: int
    bid_volume_10: int
    ask_volume_10: int
    ofi: int | None
    bid_levels: int
    ask_levels: int
    book_state: str
    source: str
    ts_recv: int
    source_partition: int
    source_offset: int


class ProgressRecord(NamedTuple):
    """A record of `progress.avsc`."""

    partition: int
    feed: str
    ts_watermark: int
    source_offset: int


class FeedStatusRecord(NamedTuple):
    """A record of `feed_status.avsc`."""

    feed: str
    connection: str
    business: str
    state: str
    reason: str
    ts_from: int
    ts_to: int | None
    symbols: list[str]
    last_sequence: int


class LateTradeRecord(NamedTuple):
    """A record of `late_trade.avsc`."""

    symbol: str
    ts_event: int
    price: int
    volume: int
    turnover: int
    direction: int
    trade_type: str | None
    feed: str
    ts_watermark: int
    late_ms: int
    source: str
    ts_recv: int
    source_partition: int
    source_offset: int


class ReconciliationRecord(NamedTuple):
    """A record of `reconciliation.avsc`."""

    symbol: str
    interval: str
    ts_start: int
    trade_date: int | None
    status: str
    reason: str | None
    revision: int
    bar_revision: int | None
    completeness: str | None
    open: int | None
    high: int | None
    low: int | None
    close: int | None
    volume: int | None
    turnover: int | None
    vendor_open: int | None
    vendor_high: int | None
    vendor_low: int | None
    vendor_close: int | None
    vendor_volume: int | None
    vendor_turnover: int | None
    volume_ratio: int | None
    day_equal: int
    day_differs: int
    day_not_comparable: int
    source: str
    ts_recv: int
    source_partition: int
    kline_offset: int | None
    bar_offset: int | None


class DeadLetterRecord(NamedTuple):
    """A record of `dead_letter.avsc`."""

    source_topic: str
    source_partition: int | None
    source_offset: int | None
    key: bytes | None
    value: bytes
    error_class: str
    error_text: str
    feed: str | None = None
    connection: str | None = None
    ts_recv: int | None = None
    source: str | None = None


RECORDS: dict[str, type[tuple[Any, ...]]] = {
    "raw_trade": RawTradeRecord,
    "raw_depth": RawDepthRecord,
    "raw_kline": RawKlineRecord,
    "bar": BarRecord,
    "activity_bar": ActivityBarRecord,
    "vwap": VwapRecord,
    "depth_imbalance": DepthImbalanceRecord,
    "progress": ProgressRecord,
    "feed_status": FeedStatusRecord,
    "late_trade": LateTradeRecord,
    "reconciliation": ReconciliationRecord,
    "dead_letter": DeadLetterRecord,
}
"""By the name of the schema's file."""
_BY_NAME = {record.__name__: record for record in RECORDS.values()}


def record_type(schema: Mapping[str, Any]) -> type[tuple[Any, ...]]:
    """Return the named record of a schema of ours."""
    return _BY_NAME[f"{schema['name']}Record"]
