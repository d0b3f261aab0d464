"""From the protocol's outputs to acknowledged Kafka records, over a spool on disk while the broker
is away."""
