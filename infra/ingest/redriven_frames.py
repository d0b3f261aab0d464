"""Makes raw records of frames that were dead letters: read again as the producer reads them, once
their cause is mended."""

from collections.abc import Callable, Mapping
from typing import Any

from producers.feed.intake import NoMoreAskedFor
from producers.feed.outputs import CHANNEL_OF, raw_record
from producers.vendor.exact_json import UnreadableFrame
from producers.vendor.frames import read_frame
from producers.vendor.pushes import Push
from producers.vendor.symbols import BUSINESSES
from schemas.clients.registry import Registry
from schemas.times import MAX_FUTURE_MS
from schemas.topics import Topology, load_schema
from schemas.wire import Fields, compile_encoder

UNNUMBERED = 0
"""The sequence of a redriven frame: on its connection it had none, and the others have no hole."""


class FrameStays(ValueError):
    """A dead letter of which no raw record can be made; the message says why."""


class RedrivenFrames:
    """Reads the dead letters of frames of one namespace."""

    def __init__(self, names: Topology, registry: Registry) -> None:
        self._names = names
        self._registry = registry
        self._encoders: dict[str, Callable[..., bytes]] = {}

    def __call__(self, record: Fields) -> Fields:
        """Return a dead letter's record as that of a raw record; raises FrameStays.

        The raw record has the feed, connection, receive time and source of the frame, UNNUMBERED
        for its sequence, and is no repeat: it never was in the topic. Agents judge it as any other
        that comes late.
        """
        feed, connection, received, source = (
            record[name] for name in ("feed", "connection", "ts_recv", "source")
        )
        if feed is None or connection is None or received is None or source is None:
            raise FrameStays("it does not say by which feed and when it was received")
        if record["error_class"] == NoMoreAskedFor.__name__:
            raise FrameStays("its symbol was taken out: the topic may have the same from elsewhere")
        business = feed.rpartition("-")[0]
        if business not in BUSINESSES:
            raise FrameStays(f"its feed {feed!r:.60} is of no business of the vendor's")
        push = _push(record["value"], received)
        raw = raw_record(push, (business, feed, connection, UNNUMBERED, received, source))
        topic = self._names.name(CHANNEL_OF[type(push)].topic)
        value = self._encoder(topic)(*raw)
        made = {
            "source_topic": topic,
            "source_partition": None,
            "source_offset": UNNUMBERED,
            "key": push.symbol.encode(),
            "value": value,
        }
        return {**record, **made}

    def _encoder(self, topic: str) -> Callable[..., bytes]:
        if topic not in self._encoders:
            described = next(each for each in self._names.topics() if each.name == topic)
            assert described.schema is not None
            schema: Mapping[str, Any] = load_schema(described.schema)
            schema_id = self._registry.id_of(described.subject, dict(schema))
            if schema_id is None:
                raise FrameStays(
                    f"the registry has no schema of {topic}: run `infoway-streams topology "
                    "apply` first"
                )
            self._encoders[topic] = compile_encoder(dict(schema), schema_id)
        return self._encoders[topic]


def _push(frame: bytes, received_us: int) -> Push:
    try:
        read = read_frame(frame, received_us // 1000 + MAX_FUTURE_MS, greeting=False)
    except UnreadableFrame as error:
        raise FrameStays(
            f"it cannot be read now either: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(read, Push):
        raise FrameStays(f"it is no trade, book or kline, but a {type(read).__name__}")
    return read
