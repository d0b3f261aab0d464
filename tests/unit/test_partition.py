"""Kafka's murmur2, held against the vectors of Kafka's own UtilsTest."""

import pytest

from schemas.partition import murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_equals_kafkas(key, signed):
    assert murmur2(key) == signed & 0xFFFFFFFF


def test_partition_drops_the_sign_as_java_does():
    assert partition_of(b"21", 6) == (-973932308 & 0x7FFFFFFF) % 6
