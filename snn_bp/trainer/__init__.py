"""The training loop and what it needs to know before it starts."""
