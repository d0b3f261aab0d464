"""Values of schemas that others wrote: read within bounds, and no code is made of them."""
