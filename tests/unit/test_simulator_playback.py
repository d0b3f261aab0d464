"""Playing a recording: whom a frame is for, and that the player shares the loop."""

import asyncio
import json

import pytest

from infra.simulator.playback import TURN, addressed, paced
from producers.recording.reader import RecordedFrame


def frames(*documents):
    return [
        RecordedFrame(number, json.dumps(document).encode())
        for number, document in enumerate(documents, 1)
    ]


@pytest.mark.parametrize(
    ("code", "channel"), [(10002, "trade"), (10005, "depth"), (10008, "kline")]
)
def test_a_push_is_for_the_subscribers_of_its_channel_and_symbol(code, channel):
    (frame,) = addressed(frames({"code": code, "data": {"s": "A"}}))
    assert (frame.channel, frame.symbol) == (channel, "A")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"code": 10002},
        {"code": 10002, "data": []},
        {"code": [], "data": {"s": "A"}},
        {"code": 200, "data": {"s": "A"}},
    ],
)
def test_a_frame_that_names_no_channel_or_symbol_is_for_everybody(document):
    assert addressed(frames(document))[0].channel is None


def test_the_fastest_play_lets_others_have_their_turn():
    async def converse():
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        running = asyncio.create_task(other())
        played = [frame async for frame in paced(addressed(frames(*[{}] * (5 * TURN))), 0)]
        running.cancel()
        return len(played), turns

    assert asyncio.run(converse()) == (5 * TURN, 5)
