"""How long a test waits for what must come."""

PATIENCE: float = 60
"""Seconds until a test gives up: a bound, not an expectation, and far more than anything takes on a busy machine.
A test whose point is that something is quick has a bound of its own, and says so."""
