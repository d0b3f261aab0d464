"""Where the pipeline runs: deployment, workers and their supervisor, health, exit codes."""
