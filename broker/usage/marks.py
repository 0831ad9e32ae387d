"""The hash of a view: over the full names and the definitions in it, in the order of the names."""

import hashlib
from collections.abc import Iterable

from broker.core import wire
from broker.core.catalog import Entry
from broker.core.grants import full_name
from broker.usage.records import Mark


class Marks:
    """Each definition is hashed once for one catalog, however many callers see it."""

    def __init__(self) -> None:
        self._hashes: dict[Entry, bytes] = {}

    def forget(self) -> None:
        """The catalog is another one."""
        self._hashes.clear()

    def of(self, entries: Iterable[Entry]) -> Mark:
        """The mark of a view."""
        named = ((full_name(entry.kind, entry.server, entry.own), entry) for entry in entries)
        rows = sorted(named, key=lambda row: (row[0], row[1].kind))
        digest = hashlib.sha256()
        for full, entry in rows:
            digest.update(full.encode("utf-8", "surrogatepass") + b"\0" + self._hash(entry))
        public = {full: entry.public for full, entry in rows if entry.public != full}
        return Mark(digest.hexdigest(), tuple(full for full, _ in rows), public)

    def _hash(self, entry: Entry) -> bytes:
        found = self._hashes.get(entry)
        if found is None:
            found = self._hashes[entry] = hashlib.sha256(wire.encode(dict(entry.definition))).digest()
        return found
