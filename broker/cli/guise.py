"""`--as KEY`: who is meant. A key is named, not shown: by its id or its place, from the file and from the store."""

import os
import sys
from typing import Final

from broker.admin.insight import NOT_SEEN, caller_at
from broker.cli.condition import KEY as VARIABLE
from broker.cli.exits import BAD_INPUT, FAILED, Stop
from broker.cli.local import Local
from broker.cli.words import line
from broker.compiled import state_directory
from broker.core.caller import LOCAL, Caller
from broker.core.directory import Directory
from broker.identity.key_secret import NoKeySecret, read_key_secret
from broker.identity.keys import PREFIX, BadKey, KeyTable
from broker.stores.errors import StoreError
from broker.stores.location import Location
from broker.stores.opening import open_store

_MAX_TEXT: Final = 4096
"""Characters read of stdin: no key is as long."""


async def put_on(local: Local, reference: str | None) -> Caller:
    """Put what the store says in force, and find out who is meant: the local user, if nobody is named.

    `-`: whose text stands in `$MCP_BROKER_KEY`, or else on stdin. Raises: Stop.
    """
    if reference is None:
        return LOCAL
    if reference.startswith(PREFIX):
        raise Stop(
            "that is the text of a key, which others can read on a command line: name its id, or pass the text "
            f"in ${VARIABLE} or on stdin, with --as -",
            BAD_INPUT,
        )
    location = Location.of(local.broker.loaded.config.store, state_directory(local.broker.loaded.config))
    if location.holds_something():
        try:
            store = await open_store(location)
            try:
                local.generation.adopt((await store.load()).directory)
            finally:
                await store.aclose()
        except StoreError as error:
            raise Stop(line(error, 2000), FAILED) from None
    directory = local.generation.policy.directory
    caller = _by_text(local, directory) if reference == "-" else caller_at(directory, reference)
    if caller is None:
        raise Stop(NOT_SEEN.format(reference=line(reference)), FAILED)
    return caller


def _by_text(local: Local, directory: Directory) -> Caller:
    text = os.environ.get(VARIABLE) or sys.stdin.read(_MAX_TEXT)
    config = local.broker.loaded.config
    try:
        key_secret = config.identity.key_secret or read_key_secret(state_directory(config))
        if key_secret is None:
            raise BadKey("nothing was ever hashed")
        return KeyTable(key_secret, directory).verify(text.strip(), local.broker.clock.wall()).caller
    except NoKeySecret as error:
        raise Stop(line(error, 2000), FAILED) from None
    except BadKey:
        raise Stop("that is no key, or one that is not good any more", FAILED) from None
