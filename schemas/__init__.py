"""The contract: topics as data, Avro schemas with examples, the wire codec; nothing of how records
are made or computed."""
