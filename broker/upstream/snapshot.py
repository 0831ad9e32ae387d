"""The last known listing of every server, on disk, so that a server that was seen before is never waited for.

One file for each server, named by a hash of its definition (never of a resolved secret): a changed definition is
another server. Files are replaced by rename, so several brokers may share a directory. What is read is judged like
anything else that comes from outside; a file that does not hold is as good as none.
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from broker.core import wire
from broker.core.catalog import Cleaned, Dropped, Listing
from broker.core.era import ALL_VERSIONS
from broker.core.request import LISTS, Kind
from broker.core.shape import is_object

log = logging.getLogger(__name__)

FORMAT: Final = 2
"""Of the file. Another number is another broker's file: not read."""
LIMITS: Final = wire.Limits(size=64 * 1024 * 1024, nodes=2_000_000)


class Snapshots:
    """The directory. One that cannot be written is said once, and the broker runs without."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._is_broken = False

    def load(self, fingerprint: str) -> Listing | None:
        """The listing of the server with this fingerprint, or None."""
        try:
            return _listing(wire.decode(self._path(fingerprint).read_bytes(), LIMITS))
        except FileNotFoundError:
            return None
        except (OSError, wire.Malformed, ValueError, KeyError, TypeError, AttributeError) as error:
            log.debug("snapshot not used: %s", type(error).__name__)
            return None

    def save(self, fingerprint: str, listing: Listing) -> None:
        """Keep a listing. Never raises: a snapshot is a convenience."""
        if self._is_broken:
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(self._path(fingerprint), wire.encode(_document(listing)))
        except (OSError, wire.Malformed) as error:
            self._is_broken = True
            why = getattr(error, "strerror", None) or type(error).__name__
            log.warning("no catalog snapshot: %s cannot be written (%s); set broker.state_dir", self._directory, why)

    def _path(self, fingerprint: str) -> Path:
        return self._directory / f"{fingerprint}.json"


def replace_file(path: Path, data: bytes) -> None:
    """Another content for a file, whole or not at all. Raises: OSError."""
    handle, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _document(listing: Listing) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": listing.version,
        "info": listing.info,
        "capabilities": listing.capabilities,
        "instructions": listing.instructions,
        "items": {kind: listing.items[kind] for kind in listing.items},
        "ttl": {kind: listing.ttl[kind] for kind in listing.ttl},
        "dropped": [[item.kind, item.own, item.reason] for item in listing.dropped],
        "cleaned": [[item.kind, item.own, item.what] for item in listing.cleaned],
    }


def _listing(document: Mapping[str, Any]) -> Listing:
    """Raises: ValueError, KeyError, TypeError, AttributeError for anything that `_document` did not make."""
    if document["format"] != FORMAT:
        raise ValueError("another format")
    version = next(known for known in (*ALL_VERSIONS, None) if known in (document["version"], None))
    if version is None:
        raise ValueError("an unknown version")
    items = {Kind(kind): tuple(found) for kind, found in document["items"].items()}
    for kind, found in items.items():
        if not all(isinstance(item[LISTS[kind].name_key], str) for item in found):
            raise ValueError("an item without a name")
        if kind is Kind.TOOL and not all(is_object(item["inputSchema"]) for item in found):
            raise ValueError("a tool without a schema")
    instructions = document["instructions"]
    if instructions is not None and not isinstance(instructions, str):
        raise ValueError("instructions that are no text")
    return Listing(
        version,
        dict(document["info"]),
        dict(document["capabilities"]),
        instructions,
        items,
        {Kind(kind): float(seconds) for kind, seconds in document["ttl"].items()},
        tuple(Dropped(Kind(kind), own, reason) for kind, own, reason in document["dropped"]),
        tuple(Cleaned(kind, own, what) for kind, own, what in document["cleaned"]),
    )
