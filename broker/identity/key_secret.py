"""The secret under which keys are hashed: from the configuration, or from a file that the first broker makes.

Without it stored hashes verify nothing, so it is never made anew where one was: a file that does not hold is an error.
"""

import base64
import contextlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from broker.config import Secret

FILE: Final = "key_secret"
SIZE: Final = 32
"""Random bytes of a secret that is made here."""
MIN_LENGTH: Final = 32
"""Characters. A shorter one could be guessed by whoever has the hashes."""
MAX_LENGTH: Final = 4096
"""Bytes that are read: a mistaken file is not read whole."""


class NoKeySecret(Exception):
    """There is none, and none can be made. The text says what to do, and has nothing of the secret."""


def read_key_secret(directory: Path) -> Secret | None:
    """What the file in the state directory holds, None if there is no file.

    Raises: NoKeySecret, if it cannot be read, is too short, or others may read it.
    """
    path = directory / FILE
    try:
        # Non-blocking, since a FIFO in its place would hold up the start for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NoKeySecret(f"{path} cannot be read ({error.strerror})") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise NoKeySecret(f"{path} is not a file. Remove it, or set identity.key_secret.")
        if os.name == "posix" and status.st_mode & 0o077:
            raise NoKeySecret(f"others on this machine may read {path}. Say: chmod 600 {path}")
        raw = os.read(handle, MAX_LENGTH + 1)
    finally:
        os.close(handle)
    text = raw.decode("ascii", "replace").strip()
    if not MIN_LENGTH <= len(text) <= MAX_LENGTH or not text.isprintable() or not text.isascii():
        raise NoKeySecret(
            f"{path} does not hold a secret of at least {MIN_LENGTH} printable characters. Restore it from a backup; "
            "if there is none, remove it, and rotate every key."
        )
    return Secret(text)


def make_key_secret(directory: Path, random_bytes: Callable[[int], bytes], *, has_keys: bool = False) -> Secret:
    """What the file in the state directory holds; made now if there is none. Several processes that come at once all
    get the same one: it is written aside, and the first to link it into place has made it.

    `has_keys`: whether the store has keys, which only the secret that is missing could verify. Raises: NoKeySecret.
    """
    known = read_key_secret(directory)
    if known is not None:
        return known
    if has_keys:
        raise NoKeySecret(
            f"{directory / FILE} is missing, and the store has keys that were hashed with it. Restore it from a "
            "backup; if there is none, set identity.key_secret, and rotate every key."
        )
    text = base64.urlsafe_b64encode(random_bytes(SIZE)).decode().rstrip("=")
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _link_into_place(directory / FILE, text.encode() + b"\n")
    except FileExistsError:
        pass
    except OSError as error:
        why = f"{directory / FILE} cannot be made ({error.strerror})"
        raise NoKeySecret(f"{why}. Set broker.state_dir to a directory that can be written.") from None
    made = read_key_secret(directory)
    if made is None:
        raise NoKeySecret(f"{directory / FILE} was removed while it was made")
    return made


def _link_into_place(path: Path, data: bytes) -> None:
    """Raises: FileExistsError, if another was first; OSError."""
    handle, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)  # 0600 from the start
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        os.link(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
