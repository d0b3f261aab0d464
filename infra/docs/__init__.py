"""The parts of docs/ that are made from the code: settings, metrics, exit codes."""
