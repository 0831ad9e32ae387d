"""The side of the agents: fronts, which turn bytes into a judged request of a known caller, and back."""
