"""Time bars."""
