"""One way to load a text as a file, for every test here."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from broker.config import ConfigError, Loaded, Problem, load

Load = Callable[..., Loaded]
Problems = Callable[..., tuple[Problem, ...]]


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    def run(text: str | bytes, environ: Mapping[str, str] | None = None, name: str = "servers.yaml") -> Loaded:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load(path, environ or {})

    return run


@pytest.fixture
def problems_of(load_text: Load) -> Problems:
    def run(*args: object, **keywords: object) -> tuple[Problem, ...]:
        with pytest.raises(ConfigError) as caught:
            load_text(*args, **keywords)
        return caught.value.problems

    return run
