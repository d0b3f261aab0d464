"""Named records from mappings, for tests that care about some of the fields: the rest is None."""

from schemas.records import BarRecord, RawDepthRecord, RawKlineRecord, RawTradeRecord


def raw_trade(fields):
    return _of(RawTradeRecord, fields)


def raw_depth(fields):
    return _of(RawDepthRecord, fields)


def raw_kline(fields):
    return _of(RawKlineRecord, fields)


def bar_record(fields):
    return _of(BarRecord, fields)


def _of(record, fields):
    return record(*(fields.get(name) for name in record._fields))
