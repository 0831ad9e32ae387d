"""What `grant` sets: rules that are left as they are, taken away, or given."""

from dataclasses import dataclass
from typing import Any, Final

from broker.stores.rows import RulesJson


class _Kept:
    def __repr__(self) -> str:
        return "KEPT"


KEPT: Final = _Kept()
"""Leave it as it is."""


@dataclass(frozen=True, slots=True)
class Rules:
    """`allow` and `deny`: lists in the words of the file, None to take the list away, or `KEPT`."""

    allow: RulesJson | _Kept | None = KEPT
    deny: RulesJson | _Kept | None = KEPT

    def over(self, allow: RulesJson | None, deny: RulesJson | None) -> tuple[RulesJson | None, RulesJson | None]:
        """What the two lists are afterwards. No denial is no list."""
        new_allow = allow if isinstance(self.allow, _Kept) else self.allow
        new_deny = deny if isinstance(self.deny, _Kept) else self.deny
        return new_allow, new_deny or None

    def changes(self, allow: RulesJson | None, deny: RulesJson | None) -> dict[str, Any]:
        """The columns to set."""
        new_allow, new_deny = self.over(allow, deny)
        return {"allow": new_allow, "deny": new_deny}
