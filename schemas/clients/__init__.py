"""Clients of the schema registry and of Kafka, and what a cluster must have; nothing of what is
read or written."""
