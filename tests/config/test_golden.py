"""Files in, problems or models out. `UPDATE_GOLDEN=1 pytest` rewrites what is expected; read the difference."""

import json
import os
from pathlib import Path

import pytest

from broker.config import ConfigError, load

GOLDEN = Path(__file__).parent.parent / "golden" / "config"
ENVIRON = {"DOCS_TOKEN": "planted-secret", "INPUT_API_KEY": "planted-secret", "HOME": "/home/me"}
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.suffix in {".yaml", ".json", ".jsonc"})


def outcome(name: str) -> str:
    """What an operator sees: warnings and the dumped model, or the problems."""
    try:
        loaded = load(Path(name), ENVIRON)
    except ConfigError as error:
        return f"{error}\n"
    dumped = loaded.config.model_dump(mode="json", exclude_defaults=True)
    return "".join(f"{warning}\n" for warning in loaded.warnings) + json.dumps(dumped, indent=2) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_a_file_gives_exactly_the_problems_or_the_model_beside_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    expected, actual = GOLDEN / f"{name}.expected", outcome(name)
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(actual, encoding="utf-8")
    assert actual == expected.read_text(encoding="utf-8")
    assert "planted-secret" not in actual
    assert "hunter2" not in actual
