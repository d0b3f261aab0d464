"""One file a command: its options beside what it does."""
