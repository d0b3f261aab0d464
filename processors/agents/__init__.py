"""The computations, one folder an agent: its records in and rows out, its state, its figures."""
