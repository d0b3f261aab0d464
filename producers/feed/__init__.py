"""One feed's protocol without I/O: what is published, in which order, and what of it was
observed."""
