"""A lock between processes, held while a database is made or migrated, and never else."""

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio

from broker.stores.errors import StoreUnavailable

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

WAIT: Final = 30.0
"""Seconds to wait for another process that migrates; a large index is rebuilt within that."""
_POLL: Final = 0.05


@asynccontextmanager
async def locked(path: Path) -> AsyncGenerator[None]:
    """Held while entered; the operating system lets go of it when the process dies. The file stays.

    Raises: StoreUnavailable, if another process holds it for longer than `WAIT`; OSError, if it cannot be made.
    """
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        with anyio.move_on_after(WAIT) as patience:
            while True:
                if try_lock(handle):
                    break
                await anyio.sleep(_POLL)
        if patience.cancelled_caught:
            raise StoreUnavailable(f"another process has been migrating the database for {WAIT:g} s ({path} is locked)")
        yield
    finally:
        os.close(handle)


def try_lock(handle: int) -> bool:
    """Lock an open file, if nobody else has: until the handle is closed, or the process dies."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
