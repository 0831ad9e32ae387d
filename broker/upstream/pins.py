"""Pins on disk: one file for each server, by its key, in the state directory. `core/pins.py` compares.

A file is replaced by rename, so brokers and the command line may share a directory; who writes has read just before. A
file that cannot be read is an error, never no pins: then `hold` serves nothing of its server.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from broker.clock import Clock
from broker.core import wire
from broker.core.catalog import Listing
from broker.core.pins import Change, Compared, Mode, Pin, Place, Was, accept, compare, hashes_of, places_of, without
from broker.threads import in_thread
from broker.upstream.snapshot import LIMITS, replace_file

log = logging.getLogger(__name__)

FORMAT: Final = 1
INTERVAL: Final = 1.0
"""Seconds between two looks whether somebody has accepted something."""
HELD: Final = "its definition has changed and is held: mcp-broker pin accept"

Report = Callable[[str, Change, bool], Awaitable[None]]
"""Told once of a change: server, change, whether it is held."""


class PinsUnreadable(Exception):
    """The file is there, and is none of ours. The text says which, and what to do."""


class PinFiles:
    """The directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, server: str) -> Path:
        """Of a server; its key is a plain word."""
        return self._directory / f"{server}.json"

    def stamp(self, server: str) -> int:
        """Another number when the file is another; 0: there is none."""
        try:
            return self.path(server).stat().st_mtime_ns
        except OSError:
            return 0

    def servers(self) -> list[str]:
        """Those that have pins."""
        return sorted(path.stem for path in self._directory.glob("*.json"))

    def read(self, server: str) -> dict[Place, Pin]:
        """The pins of a server. Raises: PinsUnreadable."""
        path = self.path(server)
        try:
            document = wire.decode(path.read_bytes(), LIMITS)
            if document["format"] != FORMAT:
                raise ValueError("another format")
            return {(str(one["kind"]), str(one["own"])): _pin(one) for one in document["pins"]}
        except FileNotFoundError:
            return {}
        except (OSError, wire.Malformed, ValueError, KeyError, TypeError) as error:
            why = getattr(error, "strerror", None) or "it is damaged"
            raise PinsUnreadable(f"{path} cannot be read ({why}): restore it, or remove it to pin anew") from None

    def write(self, server: str, pins: Mapping[Place, Pin]) -> None:
        """Keep the pins of a server. Raises: OSError."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        listed = [{"kind": kind, "own": own, **_document(pin)} for (kind, own), pin in sorted(pins.items())]
        replace_file(self.path(server), wire.encode({"format": FORMAT, "pins": listed}))

    def compare(self, server: str, listing: Listing, at: float) -> Compared:
        """What a server says now, beside what it said; the difference is kept. Raises: PinsUnreadable, OSError."""
        known = self.read(server)
        found = compare(known, hashes_of(listing), at)
        if found.pins != known:
            self.write(server, found.pins)
        return found

    def accept(self, server: str, names: Collection[str], at: float) -> list[Place]:
        """Accept what has changed; which places that was. Raises: PinsUnreadable, OSError."""
        known = self.read(server)
        found = accept(known, names, at)
        changed = [place for place, pin in found.items() if pin != known[place]]
        if changed:
            self.write(server, found)
        return changed


class Pinning:
    """What of a listing may be served, by the pins of its server."""

    def __init__(self, files: PinFiles, clock: Clock, report: Report) -> None:
        self.files = files
        self._clock = clock
        self._report = report

    async def judged(self, server: str, mode: Mode, listing: Listing) -> Listing:
        """The listing, less what is held. With `off` nothing is read, and nothing is kept."""
        if mode == "off":
            return listing
        try:
            at = self._clock.wall()
            found = await in_thread(self.files.compare, server, listing, at)
        except (PinsUnreadable, OSError) as error:
            return self._in_doubt(server, mode, listing, error)
        for change in found.changes:
            if change.is_new:
                await self._report(server, change, mode == "hold")
        if mode == "warn" or not found.changes:
            return listing
        return without(listing, {change.place for change in found.changes}, f"{HELD} {server}")

    def _in_doubt(self, server: str, mode: Mode, listing: Listing, error: Exception) -> Listing:
        """Nobody knows what it was: with `hold` nothing is served."""
        log.error("%s: definitions cannot be compared with what they were: %s", server, error)
        if mode == "warn":
            return listing
        return without(listing, places_of(listing), "nobody knows what it was: its pins cannot be used")


def _was(one: Mapping[str, Any]) -> Was:
    return Was(str(one["hash"]), float(one["since"]), str(one["how"]))


def _pin(one: Mapping[str, Any]) -> Pin:
    pending = one["pending"]
    return Pin(_was(one["now"]), None if pending is None else _was(pending), tuple(map(_was, one["history"])))


def _document(pin: Pin) -> dict[str, Any]:
    def was(one: Was) -> dict[str, Any]:
        return {"hash": one.hash, "since": one.since, "how": one.how}

    pending = None if pin.pending is None else was(pin.pending)
    return {"now": was(pin.now), "pending": pending, "history": [was(one) for one in pin.history]}
