"""Bars that wait for a vendor's kline."""
