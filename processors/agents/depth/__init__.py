"""Depth imbalance and order-flow imbalance."""
