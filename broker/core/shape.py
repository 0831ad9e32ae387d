"""What a decoded JSON value is. A check that tells the type checker too, since wire values are `Any`.

Every message is asked some forty times, so it is `isinstance` itself that answers, without a function around it.
"""

from collections.abc import Callable
from typing import Any, Final, TypeGuard

is_object: Final[Callable[[object], TypeGuard[dict[str, Any]]]] = dict.__instancecheck__  # pyright: ignore[reportAssignmentType]
"""Whether a value is a JSON object."""

is_array: Final[Callable[[object], TypeGuard[list[Any]]]] = list.__instancecheck__  # pyright: ignore[reportAssignmentType]
"""Whether a value is a JSON array."""
