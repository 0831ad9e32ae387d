"""What stands for a store that was never made: it holds nothing, and reading it makes nothing."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from broker.core.directory import Directory
from broker.stores.errors import StoreUnavailable

if TYPE_CHECKING:
    from broker.stores.directory import Change

_Row = TypeVar("_Row")


class EmptyReading:
    """See `directory.Reading`."""

    async def all(self, kind: type[_Row], **where: object) -> list[_Row]:
        """None."""
        return []

    async def one(self, kind: type[_Row], **where: object) -> Any:
        """None."""
        return None

    async def hashes_of(self, **where: object) -> list[Any]:
        """None."""
        return []

    async def count_of(self, kind: type[_Row], **where: object) -> int:
        """None."""
        return 0

    async def revision(self) -> int:
        """It never was changed."""
        return 0


@dataclass(frozen=True)
class Nothing:
    """See `directory.Stored`."""

    revision: int = 0
    directory: Directory = field(default_factory=Directory)


class EmptyStore:
    """See `directory.DirectoryStore`."""

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[EmptyReading]:
        """Of nothing."""
        yield EmptyReading()

    @asynccontextmanager
    async def changing(self) -> AsyncGenerator["Change"]:
        """Raises: StoreUnavailable."""
        raise StoreUnavailable("there is no database to write to")
        yield

    async def load(self) -> Nothing:
        """Nobody."""
        return Nothing()

    async def used(self, *asked: object) -> list[Any]:
        """Nothing was."""
        return []

    async def held(self, *asked: object) -> dict[Any, Any]:
        """Nothing is."""
        return {}

    async def aclose(self) -> None:
        """Nothing is open."""
