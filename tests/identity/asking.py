"""What a front would ask: headers, query and address, without a connection."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from broker.core.directory import Directory
from broker.core.policy import Policy
from broker.downstream.head import Headers


class Told:
    """Stands for the rest of a broker, in which the directory is what it is told each time."""

    def __init__(self, directory: Callable[[], Directory]) -> None:
        self._directory = directory

    @property
    def served(self) -> "Told":
        return self

    @property
    def policy(self) -> Policy:
        return Policy(directory=self._directory())


@dataclass
class Ask:
    """See `Asking`."""

    headers: Headers
    query: bytes = b""
    peer: str = "192.0.2.7"
    mark: bytes | None = None

    @classmethod
    def of(cls, *headers: tuple[str, str], query: bytes = b"", peer: str = "192.0.2.7") -> "Ask":
        raw: Iterable[tuple[bytes, bytes]] = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        return cls(Headers(raw), query, peer)

    @classmethod
    def bearer(cls, text: str, peer: str = "192.0.2.7") -> "Ask":
        return cls.of(("Authorization", f"Bearer {text}"), peer=peer)

    @classmethod
    def key(cls, text: str, peer: str = "192.0.2.7") -> "Ask":
        return cls.of(("X-API-Key", text), peer=peer)
