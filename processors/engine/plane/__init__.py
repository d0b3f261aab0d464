"""What runs under Faust: membership, fetching, the reading of messages, the watch over progress."""
