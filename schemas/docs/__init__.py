"""The contract as documents for people and tools, made from `schemas/`: pages of the topics and
AsyncAPI; no cluster."""
