"""A process of the drill, `worker` or `produce ...`, which ends with the drill. DRILL_MUTATION
plants one of MUTATIONS, so that the oracle can be seen to find it; the product reads no such
variable."""

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

EVERY = 400
"""A record in so many is struck."""


def lost_record() -> None:
    """A record of a derived topic is not sent."""
    _struck_outputs(lambda send, struck, record: None if struck else send(*record))


def doubled_record() -> None:
    """A record of a derived topic is sent twice."""

    def produce(send: Callable[..., None], struck: bool, record: tuple[Any, ...]) -> None:
        send(*record)
        if struck:
            send(*record)

    _struck_outputs(produce)


def swapped_pair() -> None:
    """Two records of a topic change places."""
    kept: list[tuple[Any, ...]] = []

    def produce(send: Callable[..., None], struck: bool, record: tuple[Any, ...]) -> None:
        if struck:
            kept.append(record)
            return
        send(*record)
        if kept and kept[0][:2] == record[:2]:
            send(*kept.pop())

    _struck_outputs(produce)


def state_ahead_of_outputs() -> None:
    """State is written beside the transaction: an abort leaves it ahead."""
    from processors.engine.transactions.transactions import Transactions
    from producers.delivery.client import open_producer

    send, beside = Transactions.produce, open_producer(os.environ["INFOWAY_BOOTSTRAP"])

    def produce(self: Any, topic: str, partition: int, key: Any, value: Any, *rest: Any) -> None:
        if ".state." in topic:
            beside.produce(topic, value, key, partition)
            beside.poll(0)
        else:
            send(self, topic, partition, key, value, *rest)

    Transactions.produce = produce  # type: ignore[method-assign]


def commit_without_fencing() -> None:
    """Offsets are committed for no generation and no member: the broker fences nothing."""
    from processors.engine.transactions.group import Member
    from processors.engine.transactions.transactions import Transactions

    assert Transactions._owner, "a rule that has another name now would be missed by nobody"
    Transactions._owner = lambda self: Member(self.member.group, -1, "")  # type: ignore


def ambiguous_commit_not_renewed() -> None:
    """A producer whose connection broke in the transaction goes on."""
    from processors.engine.transactions.producer import TransactionalProducer

    assert TransactionalProducer.renew_if_suspect, "as above"
    TransactionalProducer.renew_if_suspect = lambda self: False  # type: ignore[method-assign]


def forgotten_tombstone() -> None:
    """What a state has removed stays in its topic."""
    _struck_state(lambda key, value: value is None)


def state_key_not_written() -> None:
    """A key of the state in seven is not written."""
    _struck_state(lambda key, value: sum(key) % 7 == 0)


def state_kept_after_revocation() -> None:
    """A partition that comes back is taken up with the state that it had."""
    from processors.engine import engine

    restored, kept = engine.restored, {}

    def restore(agent: Any, partition: int, *facts: Any) -> Any:
        return kept.setdefault((agent.name, partition), restored(agent, partition, *facts))

    engine.restored = restore


def stale_member_accepted() -> None:
    """A batch of an assignment that is over is applied as if it were of the present one."""
    from processors.engine.engine import Engine

    handle = Engine.handle

    async def handle_any(self: Any, agent: Any, batch: Any) -> None:
        await handle(self, agent, replace(batch, member=self.ready or batch.member))

    Engine.handle = handle_any  # type: ignore[method-assign]


def stale_member_accepted_unfenced() -> None:
    """The two rules that cover each other are both out."""
    stale_member_accepted()
    commit_without_fencing()


def gap_too_short_by_a_second() -> None:
    """A loss begins a second later in its control record than it did."""
    from schemas.control import Control

    headers = Control.headers

    def shortened(self: Any) -> Any:
        start = self.ts_from
        return headers(self if start is None else replace(self, ts_from=start + 1000))

    Control.headers = shortened  # type: ignore[method-assign]


def pong_taken_for_a_push() -> None:
    """What a killed feed observed ends with its last sign of life."""
    from processors.model.observation import SymbolObservation

    assert SymbolObservation.observed_until_ms, "as above"
    SymbolObservation.observed_until_ms = lambda self: self.feed.alive_until_ms  # type: ignore


MUTATIONS: dict[str, Callable[[], None]] = {
    mutation.__name__: mutation
    for mutation in (
        lost_record,
        doubled_record,
        swapped_pair,
        state_ahead_of_outputs,
        commit_without_fencing,
        ambiguous_commit_not_renewed,
        forgotten_tombstone,
        state_key_not_written,
        state_kept_after_revocation,
        stale_member_accepted,
        stale_member_accepted_unfenced,
        gap_too_short_by_a_second,
        pong_taken_for_a_push,
    )
}


def _struck_outputs(
    produce: Callable[[Callable[..., None], bool, tuple[Any, ...]], None],
) -> None:
    from processors.engine.transactions.transactions import PackedRecords, Transactions

    send, count = Transactions.produce, 0

    def struck(self: Any, topic: str, *rest: Any) -> None:
        nonlocal count
        if ".state." in topic:
            send(self, topic, *rest)
            return
        count += 1
        produce(lambda *record: send(self, *record), count % EVERY == 0, (topic, *rest))

    def one_by_one(self: Any, partition: int, records: PackedRecords) -> None:
        start = 0
        for topic, key, end in zip(records.topic_of, records.key_of, records.ends, strict=True):
            value = records.values[start:end]
            struck(self, records.topics[topic], partition, records.keys[key], value)
            start = end

    assert Transactions.produce_packed, "most records go this way: as above"
    Transactions.produce = struck  # type: ignore[method-assign]
    Transactions.produce_packed = one_by_one  # type: ignore[method-assign]


def _struck_state(unwritten: Callable[[bytes, bytes | None], bool]) -> None:
    from processors.engine.journal import Journal
    from processors.kernels.numbered_pairs import NumberedPairs

    written = Journal.written

    def lacking(self: Any, changes: Any) -> Any:
        kept: list[Any] = []
        for change in changes:
            if isinstance(change, NumberedPairs):
                which = [not unwritten(*pair) for pair in change.pairs()]
                kept.append(change.chosen(np.array(which, bool)))
            elif not unwritten(*change):
                kept.append(change)
        return written(self, kept)

    Journal.written = lacking  # type: ignore[method-assign]


def _go_by(path: Path) -> None:
    """Set this process's clock ahead by the milliseconds that a file has, whenever it changes."""
    true_ns, true_s, jump_ns = time.time_ns, time.time, 0

    def follow() -> None:
        nonlocal jump_ns
        while True:
            jump_ns = int(path.read_text()) * 1_000_000
            time.sleep(0.1)

    threading.Thread(target=follow, daemon=True).start()
    time.time_ns = lambda: true_ns() + jump_ns  # type: ignore[assignment]
    time.time = lambda: true_s() + jump_ns / 1e9  # type: ignore[assignment]


def _end_with_drill() -> None:
    # stdin is the drill's pipe: it ends with the drill, SIGKILL included
    while os.read(0, 1):
        pass
    os._exit(0)


def main() -> None:
    """Plant the mutation, and run the command."""
    threading.Thread(target=_end_with_drill, daemon=True).start()
    if clock := os.environ.get("DRILL_CLOCK"):
        _go_by(Path(clock))
    if mutation := os.environ.get("DRILL_MUTATION"):
        MUTATIONS[mutation]()
    if sys.argv[1] == "worker":
        from infra.runtime.worker import work

        work()
        return
    from infra.__main__ import main as infoway_streams

    infoway_streams()


if __name__ == "__main__":
    main()
