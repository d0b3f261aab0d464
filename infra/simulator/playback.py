"""What a recording asks of a player: to whom each frame goes, and when; no sockets."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import orjson

from infra.simulator.protocol import PUSH, Channel
from producers.recording.reader import RecordedFrame

TURN = 100


@dataclass(frozen=True, slots=True)
class AddressedFrame:
    """A recorded frame and whom it is for; one that names no channel or symbol (None) is for
    everybody."""

    recv_ms: int
    frame: bytes
    channel: Channel | None
    symbol: str


def addressed(frames: Sequence[RecordedFrame]) -> list[AddressedFrame]:
    """Return the frames with the channel and symbol that they name; of a recorder's the pushes
    alone: the rest the server says itself."""
    found = [AddressedFrame(frame.recv_ms, frame.frame, *_address(frame.frame)) for frame in frames]
    return [
        each
        for each, frame in zip(found, frames, strict=True)
        if each.channel is not None or not frame.feed
    ]


async def paced(frames: Sequence[AddressedFrame], speed: float) -> AsyncIterator[AddressedFrame]:
    """Yield each frame when it is due at this multiple of the recorded pace; 0: as soon as the one
    before was taken."""
    began, first = time.monotonic(), frames[0].recv_ms if frames else 0
    for number, frame in enumerate(frames):
        if speed:
            await asyncio.sleep(
                max(0.0, began + (frame.recv_ms - first) / 1000 / speed - time.monotonic())
            )
        elif number % TURN == 0:
            # a send to a client that keeps up never suspends: without a turn for the others the
            # loop would stand still
            await asyncio.sleep(0)
        yield frame


def _address(frame: bytes) -> tuple[Channel | None, str]:
    try:
        document = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return None, ""
    if not isinstance(document, dict):
        return None, ""
    data, code = document.get("data"), document.get("code")
    symbol = data.get("s") if isinstance(data, dict) else None
    if isinstance(symbol, str) and isinstance(code, int) and code in PUSH:
        return PUSH[code], symbol
    return None, ""
