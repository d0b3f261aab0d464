"""One Kafka transaction at a time, fenced by the generation of the group, and how a worker ends."""
