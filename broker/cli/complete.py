"""Words for the shell to offer: from the file and from what is known on disk. Nothing is started, nothing is said."""

import logging
import os
from pathlib import Path

from broker.cli.begin import find_config
from broker.clock import SystemClock
from broker.config import load
from broker.core.request import Kind
from broker.generation import Generation
from broker.relay.notify import Hub


def names(config: Path | None, kind: str, incomplete: str) -> list[str]:
    """Public names of a kind, that of every server seen before."""
    generation = _generation(config)
    if generation is None:
        return []
    found = generation.catalog.entries(Kind(kind))
    # The shell gets what it inserts as it is.
    return [one.public for one in found if one.public.startswith(incomplete) and one.public.isprintable()]


def views(config: Path | None, incomplete: str) -> list[str]:
    """Servers and groups."""
    generation = _generation(config)
    return [] if generation is None else [view for view in generation.policy.views if view.startswith(incomplete)]


def _generation(config: Path | None) -> Generation | None:
    """Whatever goes wrong here, a person who pressed a key must not be interrupted by it."""
    logging.disable()
    try:
        return Generation.build(load(find_config(config), os.environ), SystemClock(), Hub())
    except Exception:
        return None
