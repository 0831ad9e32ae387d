"""Which policy: a short hash that is the same for the same rules, whoever computes it."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from functools import cached_property
from typing import Any, Final

from broker.core.directory import Key
from broker.core.policy import Policy
from broker.core.quota import UNLIMITED
from broker.core.roll import Roll


class Revision:
    """See the module. `text` is made when it is first read, which is in the thread that writes: with tens of
    thousands of keys it takes a tenth of a second, for which no call may wait. Of a place whose keys are those that
    an earlier one has seen it takes nothing. Once it is made it stands among the `vars`.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    @cached_property
    def text(self) -> str:
        """16 hexadecimal digits over the rules of servers, the views and the directory."""
        return _digest(_parts((self._policy.rules, self._policy.views, self._policy.directory)))[:16]


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _digest_in(roll: Roll[Any]) -> str:
    """For `Roll.derived`."""
    return _digest(_mapped(roll))


def _plain(key: Key) -> str:
    """A key without terms of its own, in one go: there may be a hundred thousand of them, which are walked at each
    change of the directory.
    """
    hashes = [(one.hex, one.not_after) for one in key.hashes]
    facts = (key.id, key.name, key.level.where, key.expires, f"{key.role}", key.revoked, f"{key.source}", hashes)
    return repr(facts)


NO_REVISION: Final = Revision(Policy())
"""Where none is recorded."""
NO_REVISION.text = ""


def _parts(value: Any) -> Iterator[str]:
    """A value as texts, in an order that does not depend on the process."""
    if isinstance(value, Key) and value.level.is_silent and value.level.limits is UNLIMITED:
        yield _plain(value)
    elif isinstance(value, Roll):
        yield value.derived(_digest_in)  # pyright: ignore[reportUnknownMemberType]
    elif isinstance(value, Mapping):
        yield from _mapped(value)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, AbstractSet):
        yield from sorted(map(str, value))  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, tuple | list):
        yield "["
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _parts(item)
        yield "]"
    elif is_dataclass(value):
        for one in fields(value):
            if one.compare:
                yield one.name
                yield from _parts(getattr(value, one.name))
    else:
        yield repr(value)


def _mapped(value: Mapping[Any, Any]) -> Iterator[str]:
    yield "{"
    for key in sorted(value, key=str):
        yield str(key)
        yield from _parts(value[key])
    yield "}"
