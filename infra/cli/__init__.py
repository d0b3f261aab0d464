"""The command line: one file a command, its options beside what it does."""
