"""Expands references in the fields where they mean something, and nowhere else."""

from broker.config.document import Data, Finding, Path
from broker.config.secret import BadReferenceError, Sources, expand

EXPANDED: frozenset[str] = frozenset({"command", "args", "env", "cwd", "url", "headers"})
"""Of a server. Besides: `broker.instructions`, `store.url` and `identity.key_secret`."""


def resolve(data: dict[str, Data], sources: Sources) -> tuple[dict[str, Data], list[Finding]]:
    """The data with references expanded, a copy; and a finding for each that leads nowhere (its text stays)."""
    found: list[Finding] = []

    def walk(value: Data, path: Path) -> Data:
        if isinstance(value, dict):
            return {key: walk(item, (*path, key)) if _reaches((*path, key)) else item for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*path, index)) for index, item in enumerate(value)]
        return _expanded(value, path) if isinstance(value, str) else value

    def _expanded(text: str, path: Path) -> Data:
        try:
            return expand(text, sources)
        except BadReferenceError as error:
            found.extend(Finding.from_fault(path, fault) for fault in error.faults)
            return text

    return {key: walk(value, (key,)) if _reaches((key,)) else value for key, value in data.items()}, found


def _reaches(path: Path) -> bool:
    """Whether something below this path, or at it, is expanded."""
    match path:
        case ("servers",) | ("servers", _) | ("broker",) | ("broker", "instructions") | ("store",) | ("store", "url"):
            return True
        case ("identity",) | ("identity", "key_secret"):
            return True
        case ("servers", _, field, *_):
            return field in EXPANDED
        case _:
            return False
