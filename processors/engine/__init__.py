"""Faust agents, exactly once, in batches: librdkafka fetches and produces, Faust keeps the group,
state lives in compacted topics."""
