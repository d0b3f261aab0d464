"""What feeds a deployment: symbols, their plan, the producer in this process, its spool, what its
log already has."""
