"""Fetching by the C library itself, without its binding and its object for each record: where the
kernels can be used."""

import ctypes
import logging
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, cast

import confluent_kafka as ck
import numpy as np
from confluent_kafka import KafkaError, KafkaException

from processors.decode.messages import Messages
from processors.engine.plane.binding import Come, end_of
from processors.engine.sources import SourcePartition
from processors.kernels.columns import Array
from processors.kernels.librdkafka import LIBRARY
from processors.kernels.messages import (
    MESSAGE,
    WORDS,
    copy_values,
    free_messages,
    read_messages,
)
from schemas.clients.kafka_logs import LIBRDKAFKA
from schemas.control import UNREADABLE_HEADERS

_CONSUMER = 1
"""Of rd_kafka_type_t."""
_NO_CLOSE = 8
"""RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE: there is no group to leave."""


class NativeClient:
    """The C library itself: messages stay in its memory until their values are copied out."""

    def __init__(self, configuration: Mapping[str, Any], logger: logging.Logger) -> None:
        """Connect. Raises KafkaException where the library does not take the configuration."""
        library = self._library = cast(ctypes.CDLL, LIBRARY)
        settings = dict(configuration)
        tell = settings.pop("error_cb", lambda error: None)
        callbacks = _log_to(library, logger), _tell_errors_to(tell)
        client = _new_client(library, settings, callbacks)
        library.rd_kafka_set_log_queue(client, None)
        library.rd_kafka_poll_set_consumer(client)
        self._client, self._queue = client, library.rd_kafka_queue_get_consumer(client)
        # the callbacks live as long as it may call them
        self._ended = weakref.finalize(self, _close, library, client, self._queue, callbacks)
        self._ended.atexit = False

    def assign(self, offsets: Mapping[SourcePartition, int]) -> None:
        """Read these partitions and no others from now on. Raises KafkaException."""
        library = self._library
        places = library.rd_kafka_topic_partition_list_new(len(offsets))
        try:
            for (topic, partition), offset in offsets.items():
                library.rd_kafka_topic_partition_list_add(places, topic.encode(), partition)
                library.rd_kafka_topic_partition_list_set_offset(
                    places, topic.encode(), partition, offset
                )
            if code := library.rd_kafka_assign(self._client, places):
                raise KafkaException(KafkaError(code))
        finally:
            library.rd_kafka_topic_partition_list_destroy(places)

    @contextmanager
    def consume(self, most: int, first_s: float, more_s: float) -> Iterator["NativeRecords"]:
        """Return what comes; it is librdkafka's again afterwards. Raises KafkaException once the
        client cannot go on."""
        addresses = np.empty(most, np.int64)
        count = self._take(addresses[:1], first_s)
        if not count:
            self._check()
        records = None
        try:
            if count and most > 1:
                count += self._take(addresses[1:], more_s)
            records = NativeRecords(self._library, addresses[:count])
            yield records
        finally:
            if records is not None:
                records.forget()
            free_messages(addresses[:count])

    def _check(self) -> None:
        said = ctypes.create_string_buffer(512)
        if self._library.rd_kafka_fatal_error(self._client, said, len(said)):
            why = said.value.decode(errors="replace")
            raise KafkaException(KafkaError(KafkaError._FATAL, why))

    def _take(self, addresses: Array, wait_s: float) -> int:
        found: int = self._library.rd_kafka_consume_batch_queue(
            self._queue, round(wait_s * 1000), addresses.ctypes.data, len(addresses)
        )
        return max(found, 0)


class NativeRecords:
    """Messages in librdkafka's memory."""

    def __init__(self, library: ctypes.CDLL, addresses: Array) -> None:
        self._library, self._addresses = library, addresses
        self._words = np.empty((len(addresses), WORDS), np.int64)
        read_messages(addresses, self._words)

    def __len__(self) -> int:
        return len(self._addresses)

    def forget(self) -> None:
        """Look at no message any more."""
        self._addresses = self._addresses[:0]
        self._words = self._words[:0]

    def by_partition(self) -> dict[SourcePartition, Come]:
        """Return the messages of each partition."""
        found = self._words.reshape(-1).view(MESSAGE)
        # where another partition begins, or an error stands
        new = np.ones(len(found), np.bool_)
        new[1:] = (
            (found["topic"][1:] != found["topic"][:-1])
            | (found["partition"][1:] != found["partition"][:-1])
            | (found["error"][1:] != 0)
            | (found["error"][:-1] != 0)
        )
        runs: dict[SourcePartition, tuple[list[Array], int]] = {}
        for first, after in pairwise([*np.flatnonzero(new).tolist(), len(found)]):
            place = self._place(found[first])
            rows = runs.get(place, ([], 0))[0]
            if not found["error"][first]:
                rows.append(np.arange(first, after))
                runs[place] = rows, int(found["offset"][after - 1]) + 1
            elif (end := end_of(self._message(first))) is not None:
                runs[place] = rows, end
        return {
            place: Come(self._messages(found, rows), next_offset)
            for place, (rows, next_offset) in runs.items()
        }

    def keep(self, come: Come, places: Sequence[int]) -> None:
        """Have the messages at these places when the others are gone."""
        kept = cast(_Kept, come.messages.one_by_one)
        for at in places:
            kept.messages[at] = self._message(int(kept.rows[at]))

    def _messages(self, found: Array, rows: list[Array]) -> Messages:
        of_partition = np.concatenate([np.empty(0, np.int64), *rows])
        packed = np.empty(int(found["size"][of_partition].sum()), np.uint8)
        ends = np.empty(len(of_partition), np.int64)
        copy_values(self._words, of_partition, packed, ends)
        return Messages(packed, ends, found["offset"][of_partition], _Kept(of_partition))

    def _place(self, message: Any) -> SourcePartition:
        topic = int(message["topic"])
        name = self._library.rd_kafka_topic_name(topic).decode() if topic else ""
        return name, int(message["partition"])

    def _message(self, row: int) -> ck.Message:
        """Return the binding's object of a message."""
        address, words = int(self._addresses[row]), self._words[row].view(MESSAGE)
        topic, partition = self._place(words[0])
        code, _, _, value, size, key, key_size, offset = words[0].item()
        error, headers = None, None
        if code:
            said = self._library.rd_kafka_message_errstr(address).decode(errors="replace")
            error = KafkaError(code, said)
        else:
            headers = self._headers(address) or None
        return ck.Message(
            topic,
            partition,
            offset,
            _bytes_at(key, key_size),
            _bytes_at(value, size),
            headers,
            error,
        )

    def _headers(self, address: int) -> list[tuple[str, str | bytes | None]]:
        headers = ctypes.c_void_p()
        if self._library.rd_kafka_message_headers(address, ctypes.byref(headers)):
            return []
        name, value, size = ctypes.c_char_p(), ctypes.c_void_p(), ctypes.c_size_t()
        parts = ctypes.byref(name), ctypes.byref(value), ctypes.byref(size)
        found: list[tuple[str, str | bytes | None]] = []
        while not self._library.rd_kafka_header_get_all(headers, len(found), *parts):
            try:
                decoded = (name.value or b"").decode()
            except UnicodeDecodeError:
                return [UNREADABLE_HEADERS]
            found.append((decoded, _bytes_at(value.value or 0, size.value)))
        return found


class _Kept:
    """The messages that are read one by one."""

    def __init__(self, rows: Array) -> None:
        self.rows = rows
        self.messages: dict[int, ck.Message] = {}

    def __getitem__(self, at: int) -> ck.Message:
        return self.messages[at]


def _bytes_at(address: int, size: int) -> bytes | None:
    return ctypes.string_at(address, size) if address else None


_Log = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p)
_Tell = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_LEVELS = (logging.CRITICAL,) * 3 + (logging.ERROR, logging.WARNING) + (logging.INFO,) * 2
"""Python's of syslog's, which end with that of debugging."""


def _log_to(library: ctypes.CDLL, logger: logging.Logger) -> Any:
    def log(client: int, level: int, facility: bytes, text: bytes) -> None:
        parts = (facility, library.rd_kafka_name(client), text)
        logger.log(
            _LEVELS[level] if level < len(_LEVELS) else logging.DEBUG,
            LIBRDKAFKA,
            *((part or b"").decode(errors="replace") for part in parts),
        )

    return _Log(log)


def _tell_errors_to(tell: Callable[[KafkaError], None]) -> Any:
    return _Tell(
        lambda client, code, reason, opaque: tell(
            KafkaError(code, (reason or b"").decode(errors="replace"))
        )
    )


def _new_client(library: ctypes.CDLL, settings: Mapping[str, Any], callbacks: Sequence[Any]) -> int:
    configuration = library.rd_kafka_conf_new()
    log, tell = callbacks
    library.rd_kafka_conf_set_log_cb(configuration, log)
    library.rd_kafka_conf_set_error_cb(configuration, tell)
    try:
        # log lines are handed out where records are, in the thread that fetches
        _configure(library, configuration, {**settings, "log.queue": True})
        return _start(library, configuration)
    except BaseException:
        # the client's own, where there is one
        library.rd_kafka_conf_destroy(configuration)
        raise


def _configure(library: ctypes.CDLL, configuration: int, settings: Mapping[str, Any]) -> None:
    said = ctypes.create_string_buffer(512)
    for name, value in settings.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if library.rd_kafka_conf_set(configuration, name.encode(), text.encode(), said, len(said)):
            # no text of the library's: it may quote a password
            raise KafkaException(KafkaError(KafkaError._INVALID_ARG, f"setting {name}"))


def _start(library: ctypes.CDLL, configuration: int) -> int:
    said = ctypes.create_string_buffer(512)
    client: int | None = library.rd_kafka_new(_CONSUMER, configuration, said, len(said))
    if client is None:
        raise KafkaException(KafkaError(KafkaError._FAIL, said.value.decode(errors="replace")))
    return client


def _close(library: ctypes.CDLL, client: int, queue: int, callbacks: Sequence[Any]) -> None:
    library.rd_kafka_queue_destroy(queue)
    library.rd_kafka_destroy_flags(client, _NO_CLOSE)
