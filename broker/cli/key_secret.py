"""The secret that keys are hashed with, for who makes keys."""

import sqlite3
from contextlib import suppress

from broker.clock import SystemClock
from broker.compiled import state_directory
from broker.config import Loaded, Secret
from broker.identity.key_secret import make_key_secret
from broker.stores.glance import glance
from broker.stores.location import Location


def key_secret_of(loaded: Loaded) -> Secret:
    """What keys are hashed with; made, if there is none yet. Raises: NoKeySecret."""
    if loaded.config.identity.key_secret is not None:
        return loaded.config.identity.key_secret
    state = state_directory(loaded.config)
    has_keys = False
    with suppress(sqlite3.Error):  # a store without tables
        has_keys = bool(glance(Location.of(loaded.config.store, state), "keys"))
    return make_key_secret(state, SystemClock().random_bytes, has_keys=has_keys)
