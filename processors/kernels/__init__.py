"""The hot path as loops over arrays, compiled by numba; no Kafka and no rule that is not in the
general path too."""
