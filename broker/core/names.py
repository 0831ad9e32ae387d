"""Public name <-> (server, own name), for tools, prompts, URIs and templates, in both directions.

A public name is a pure function of the configuration and the own name, never of what else is up: adding a server
renames nothing. Names are published here and looked up in the catalog, never split. A URI carries the key of its
server in its scheme, so it is looked up first and then split at the first `+`.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

SEPARATOR: Final = "__"
"""Between the prefix and the own name. No prefix contains `_`, so every name has one owner."""

UI_SCHEME: Final = "ui://"
"""MCP Apps: hosts look for this scheme, so it stays in front and the prefix follows it."""

MAX_BARE: Final = 64
"""Characters of a valid own name that an unprefixed server may keep as it is: the limit of hosts."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_HASH_LENGTH = 6


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a server's names are published. `prefix` is its word, "" for the one unprefixed server."""

    key: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Naming:
    """The naming of one configuration.

    `mounts` are all configured servers, with distinct prefixes (`config/` refuses anything else);
    `max_length` bounds a public name in characters.
    """

    mounts: tuple[Mount, ...]
    max_length: int = 47
    _by_prefix: dict[str, Mount] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_prefix", {mount.prefix: mount for mount in self.mounts})

    @classmethod
    def of(cls, mounts: Iterable[Mount], max_length: int = 47) -> "Naming":
        """A naming of any iterable of mounts."""
        return cls(tuple(mounts), max_length)

    @property
    def unprefixed(self) -> Mount | None:
        """The server whose names stand alone, if there is one."""
        return self._by_prefix.get("")

    def publish_name(self, mount: Mount, own: str) -> str | None:
        """The public name of a tool or prompt, or None if another server owns that form of name."""
        clean = _UNSAFE.sub("_", own)
        if mount.prefix:
            return self._fit(mount, own, f"{mount.prefix}{SEPARATOR}{clean}", changed=clean != own)
        bare = own if clean == own and len(own) <= MAX_BARE else self._fit(mount, own, clean, changed=True)
        # Both forms: shortening may cut the separator off, and the hash may bring one in.
        owned = self._owner_of_name(clean) or self._owner_of_name(bare)
        return bare if owned is None else None

    def publish_uri(self, mount: Mount, own: str) -> str | None:
        """The public form of a URI or URI template, or None if another server owns that form."""
        if not mount.prefix:
            return own if self._owner_of_uri(own) is None else None
        if own.startswith(UI_SCHEME):
            return f"{UI_SCHEME}{mount.prefix}+{own[len(UI_SCHEME) :]}"
        return f"{mount.prefix}+{own}"

    def resolve_uri(self, uri: str) -> tuple[Mount, str] | None:
        """The server a public URI belongs to by its form, and its own URI there. The inverse of `publish_uri`."""
        owner = self._owner_of_uri(uri)
        if owner is not None:
            return owner
        return (self.unprefixed, uri) if self.unprefixed is not None else None

    def owner_of_name(self, public: str) -> tuple[Mount, str] | None:
        """The server whose form a public name has, and what stands behind the prefix: its own name, unless that was
        changed. For names that the catalog does not know (yet).
        """
        mount = self._owner_of_name(public)
        if mount is not None:
            return mount, public[len(mount.prefix) + len(SEPARATOR) :]
        return (self.unprefixed, public) if self.unprefixed is not None else None

    def _fit(self, mount: Mount, own: str, name: str, *, changed: bool) -> str:
        """`name`, ended by a hash of what it stands for if it was changed or must be shortened."""
        if not changed and len(name) <= self.max_length:
            return name
        digest = hashlib.sha256(f"{mount.key}\0{own}".encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_LENGTH]
        return f"{name[: self.max_length - _HASH_LENGTH - 1]}_{digest}"

    def _owner_of_name(self, name: str) -> Mount | None:
        head, separator, _ = name.partition(SEPARATOR)
        return self._by_prefix.get(head) if separator and head else None

    def _owner_of_uri(self, uri: str) -> tuple[Mount, str] | None:
        scheme, rest = (UI_SCHEME, uri[len(UI_SCHEME) :]) if uri.startswith(UI_SCHEME) else ("", uri)
        head, plus, tail = rest.partition("+")
        mount = self._by_prefix.get(head) if plus and head else None
        if mount is None:
            return None
        return mount, scheme + tail
