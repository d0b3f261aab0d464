"""Commands that make, read and explain topics and groups."""
