"""The C library that confluent-kafka brings along, for what is done with each record: its binding
makes five Python objects of one.

Only what librdkafka's public header declares is used. Where the library is not found, or is not the
one that the binding uses, `LIBRARY` is None and the binding does all.
"""

import ctypes
from pathlib import Path

import confluent_kafka

from processors.kernels import compiled

_POINTER = ctypes.c_void_p
_TEXT = ctypes.c_char_p
# name: (what it returns, what it takes)
_FUNCTIONS = {
    "rd_kafka_version": (ctypes.c_int, ()),
    "rd_kafka_name": (_TEXT, (_POINTER,)),
    "rd_kafka_conf_new": (_POINTER, ()),
    "rd_kafka_conf_destroy": (None, (_POINTER,)),
    "rd_kafka_conf_set": (ctypes.c_int, (_POINTER, _TEXT, _TEXT, _TEXT, ctypes.c_size_t)),
    "rd_kafka_conf_set_error_cb": (None, (_POINTER, _POINTER)),
    "rd_kafka_conf_set_log_cb": (None, (_POINTER, _POINTER)),
    "rd_kafka_new": (_POINTER, (ctypes.c_int, _POINTER, _TEXT, ctypes.c_size_t)),
    "rd_kafka_set_log_queue": (ctypes.c_int, (_POINTER, _POINTER)),
    "rd_kafka_poll_set_consumer": (ctypes.c_int, (_POINTER,)),
    "rd_kafka_queue_get_consumer": (_POINTER, (_POINTER,)),
    "rd_kafka_queue_destroy": (None, (_POINTER,)),
    "rd_kafka_topic_partition_list_new": (_POINTER, (ctypes.c_int,)),
    "rd_kafka_topic_partition_list_add": (_POINTER, (_POINTER, _TEXT, ctypes.c_int32)),
    "rd_kafka_topic_partition_list_set_offset": (
        ctypes.c_int,
        (_POINTER, _TEXT, ctypes.c_int32, ctypes.c_int64),
    ),
    "rd_kafka_topic_partition_list_destroy": (None, (_POINTER,)),
    "rd_kafka_assign": (ctypes.c_int, (_POINTER, _POINTER)),
    "rd_kafka_consume_batch_queue": (
        ctypes.c_ssize_t,
        (_POINTER, ctypes.c_int, _POINTER, ctypes.c_size_t),
    ),
    "rd_kafka_fatal_error": (ctypes.c_int, (_POINTER, _TEXT, ctypes.c_size_t)),
    "rd_kafka_topic_name": (_TEXT, (_POINTER,)),
    "rd_kafka_message_errstr": (_TEXT, (_POINTER,)),
    "rd_kafka_message_headers": (ctypes.c_int, (_POINTER, _POINTER)),
    "rd_kafka_header_get_all": (
        ctypes.c_int,
        (_POINTER, ctypes.c_size_t, _POINTER, _POINTER, _POINTER),
    ),
    "rd_kafka_message_destroy": (None, (_POINTER,)),
    "rd_kafka_destroy_flags": (None, (_POINTER, ctypes.c_int)),
}


def _files() -> list[Path]:
    """Return where wheels have the library: on Linux, and on a Mac."""
    package = Path(confluent_kafka.__file__).parent
    return [
        *package.parent.glob("confluent_kafka.libs/librdkafka*.so*"),
        *package.glob(".dylibs/librdkafka*.dylib"),
    ]


def _loaded() -> ctypes.CDLL | None:
    if not compiled.AVAILABLE or len(files := _files()) != 1:
        return None
    library = ctypes.CDLL(str(files[0]))
    for name, (returned, taken) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = returned, taken
    if library.rd_kafka_version() != confluent_kafka.libversion()[1]:
        return None
    # what kernels call, they find by its name: here, and not in another library of the process
    from llvmlite import binding

    free = ctypes.cast(library.rd_kafka_message_destroy, _POINTER).value
    binding.add_symbol("rd_kafka_message_destroy", free)
    return library


LIBRARY: ctypes.CDLL | None = _loaded()
