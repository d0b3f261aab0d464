"""Commands of what runs: the pipeline, one worker, and what shows them."""
