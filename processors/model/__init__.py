"""What the computation reads and writes, the intervals of bars and the sessions of markets; no
bytes and no Kafka."""
