"""What the vendor says and wants to hear: codes, frames, requests, symbols, quotas, REST; no feed
and no Kafka."""
