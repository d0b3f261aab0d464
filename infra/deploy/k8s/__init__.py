"""Kubernetes manifests, and the Strimzi KafkaTopics that are made of the contract; what runs in a
pod is elsewhere."""
