"""Sockets, their clock and their threads: moves bytes between the vendor and a feed's protocol."""
