"""What a feed publishes: raw records of pushes, other records of the contract, and control records,
before encoding; no Kafka."""

from dataclasses import dataclass
from typing import NamedTuple

from producers.vendor.codes import Channel
from producers.vendor.pushes import DepthPush, KlinePush, Push, TradePush
from schemas.control import Control
from schemas.records import (
    DeadLetterRecord,
    FeedStatusRecord,
    RawDepthRecord,
    RawKlineRecord,
    RawTradeRecord,
)

RawRecord = RawTradeRecord | RawDepthRecord | RawKlineRecord
RAW_RECORDS = (RawTradeRecord, RawDepthRecord, RawKlineRecord)


class Publication(NamedTuple):
    """A record for a topic of the contract, with its key."""

    topic: str
    key: str
    record: RawRecord | FeedStatusRecord | DeadLetterRecord


@dataclass(frozen=True, slots=True)
class ControlPublication:
    """A null value with headers: keyed by a symbol, or without a key in an explicit partition."""

    topic: str
    key: str | None
    partition: int | None
    control: Control


Output = Publication | ControlPublication

Envelope = tuple[str, str, str, int, int, str]
"""business, feed, connection, sequence, ts_recv, source: what every raw record has before extra."""


CHANNEL_OF: dict[type[Push], Channel] = {
    TradePush: Channel.TRADE,
    DepthPush: Channel.DEPTH,
    KlinePush: Channel.KLINE,
}
"""The channel that a push comes on."""


def raw_record(push: Push, envelope: Envelope) -> RawRecord:
    """Return a push's raw record; a trade's is no repeat."""
    if isinstance(push, TradePush):
        return trade_record(push, False, envelope)
    if isinstance(push, DepthPush):
        return depth_record(push, envelope)
    return kline_record(push, envelope)


def trade_record(push: TradePush, repeat: bool, envelope: Envelope) -> RawTradeRecord:
    """Return a trade's raw record."""
    symbol, ts_event, price, volume, turnover, direction, trade_type, extra, _ = push
    return RawTradeRecord(
        symbol, ts_event, price, volume, turnover, direction, trade_type, repeat, *envelope, extra
    )


def depth_record(push: DepthPush, envelope: Envelope) -> RawDepthRecord:
    """Return a book's raw record."""
    symbol, ts_event, ask_prices, ask_volumes, bid_prices, bid_volumes, extra = push
    return RawDepthRecord(
        symbol, ts_event, ask_prices, ask_volumes, bid_prices, bid_volumes, *envelope, extra
    )


def kline_record(push: KlinePush, envelope: Envelope) -> RawKlineRecord:
    """Return a kline's raw record."""
    symbol, interval, ts_start, open_, high, low, close, volume, turnover, *_ = push
    return RawKlineRecord(
        symbol,
        interval,
        ts_start,
        open_,
        high,
        low,
        close,
        volume,
        turnover,
        push.change,
        push.change_percent,
        *envelope,
        push.extra,
    )
