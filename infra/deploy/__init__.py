"""Deployment: Kubernetes, Kafka Connect, monitoring, ACLs."""
