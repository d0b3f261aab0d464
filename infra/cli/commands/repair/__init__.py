"""Commands for what could not be read."""
