"""Words for the shell to offer: from the file and from what is known on disk. Nothing is started, nothing is said."""

import logging
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from broker.cli.begin import find_config
from broker.clock import SystemClock
from broker.compiled import state_directory
from broker.config import directory_of, load
from broker.core.directory import Directory
from broker.core.request import Kind
from broker.generation import Generation
from broker.relay.notify import Hub
from broker.stores.glance import glance
from broker.stores.location import Location


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


def places(config: Path | None, what: str, incomplete: str) -> list[str]:
    """Organizations, teams, or ids of keys: those of the file, and those of the store where it is a file too."""
    logging.disable()
    try:
        loaded = load(find_config(config), os.environ)
        found = _in_file(directory_of(loaded.config.organizations), what)
        with suppress(sqlite3.Error):
            found += glance(Location.of(loaded.config.store, state_directory(loaded.config)), what)
    except Exception:
        return []
    return [name for name in dict.fromkeys(found) if name.startswith(incomplete) and name.isprintable()]


def _in_file(directory: Directory, what: str) -> list[str]:
    match what:
        case "organizations":
            return list(directory.organizations)
        case "teams":
            return [f"{home.name}/{team}" for home in directory.organizations.values() for team in home.teams]
        case _:
            return []  # a key of the file is changed there


def _generation(config: Path | None) -> Generation | None:
    """Whatever goes wrong here, a person who pressed a key must not be interrupted by it."""
    logging.disable()
    try:
        return Generation.build(load(find_config(config), os.environ), SystemClock(), Hub())
    except Exception:
        return None
