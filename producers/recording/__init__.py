"""Recordings: written beside a feed, read back, and played in a socket's place."""
