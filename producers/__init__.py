"""From the vendor's frames to the raw topics: protocol, transport, publishing; nothing of what is
computed from them."""
