"""Klines of the past for what the feeds did not see."""
