"""Several processes that serve as one: `serve --workers N`."""
