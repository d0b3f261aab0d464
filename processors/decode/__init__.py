"""From a Kafka message to a record of the computation."""
