"""Rolling and session VWAP."""
