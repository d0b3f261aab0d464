"""Activity bars: ticks, volume and turnover."""
