"""What of arguments and results may be recorded: what the configuration names, in the form that it names."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final, Literal

from broker.core import wire
from broker.core.shape import is_object

Form = Literal["plain", "hash", "mask"]
"""As it is; a keyed hash, by which two calls can be compared; only that it was there."""

MASKED: Final = "***"
MAX_VALUE: Final = 1024
"""Bytes of a plain value; a longer one is hashed."""
_ABSENT: Final = object()

Allowed = Mapping[str, Mapping[str, Form]]
"""Full name of a tool -> path of an argument -> how it is recorded."""


class Excerpts:
    """`secret` keys the hashes, so that what was hashed cannot be found by trying."""

    def __init__(self, allowed: Allowed, secret: bytes) -> None:
        self._allowed = allowed
        self._secret = secret

    def of(self, full: str, value: object) -> dict[str, Any] | None:
        """What of the arguments, or of the result, of a tool is recorded; None: nothing."""
        forms = self._allowed.get(full)
        if not forms:
            return None
        found = {path: _at(value, path) for path in forms}
        return {path: self._shown(one, forms[path]) for path, one in found.items() if one is not _ABSENT} or None

    def _shown(self, value: object, form: Form) -> Any:
        if form == "mask":
            return MASKED
        if form == "plain" and (value is None or isinstance(value, bool | int | float)):
            return value
        if form == "plain" and isinstance(value, str) and len(value) <= MAX_VALUE:
            return value.encode("ascii", "backslashreplace").decode() if not value.isprintable() else value
        return hmac.new(self._secret, wire.encode(value), hashlib.sha256).hexdigest()


def _at(value: object, path: str) -> object:
    for name in path.split("."):
        if not is_object(value) or name not in value:
            return _ABSENT
        value = value[name]
    return value
