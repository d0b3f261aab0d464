"""Which event times can be true, the same on every channel; no clock and no calendar."""

EARLIEST_MS = 946_684_800_000
"""2000-01-01T00:00Z. What is earlier is no time of a trade, book or kline: seconds taken for
milliseconds are of 1970."""

MAX_FUTURE_MS = 60_000
"""How far ahead of its receipt an event time may be: more would drag the watermark along. The
producer makes dead letters of frames that are further ahead; the processors check again, as others
may write to the raw topics too."""
