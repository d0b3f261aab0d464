"""The live page: a plain consumer of the topics, a server of its own, and what a browser runs."""
