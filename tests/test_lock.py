"""What is pinned is what runs here."""

import re
from importlib.metadata import PackageNotFoundError, version

from tests.peers import ROOT


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    found = (re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)(.*)", line) for line in lines)
    return {match[1]: match[2] for match in found if match and not match[3].strip()}


def test_F103_everything_is_tested_with_the_versions_that_are_pinned() -> None:
    """A dependency that behaves otherwise fails here first: in the change that moves its pin."""
    assert len(pins()) > 50
    installed: dict[str, str] = {}
    for name in pins():
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    others = {name: (found, pins()[name]) for name, found in installed.items() if found != pins()[name]}
    assert others == {}
    assert {"mcp", "anyio", "uvloop", "httptools", "orjson", "pydantic", "sqlalchemy", "cryptography"} <= {
        name.lower() for name in installed
    }
