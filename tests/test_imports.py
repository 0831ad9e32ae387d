"""The arrows between the packages of `broker/` point one way, and what must stay in one place does."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BROKER = Path(__file__).resolve().parent.parent / "broker"

LAYERS: list[set[str]] = [
    {"errors", "clock", "half_open", "in_use", "threads"},
    {"core"},
    {"secrecy", "turns", "allocation"},
    {"workers"},
    {"logs"},
    {"config"},
    {"outbound"},
    {"stores"},
    {"identity"},
    {"guardrails"},
    {"outputs"},
    {"usage"},
    {"upstream"},
    {"relay"},
    {"downstream"},
    {"admin"},
    {"compiled"},
    {"generation"},
    {"app"},
    {"reload"},
    {"cli", "__main__"},
]
"""A package may import from those above it, never from those below. `broker` itself has the version: it is on top."""
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names} | {"": -1}

PURE = {"broker", "orjson", "cryptography"}
"""What core/ may import beyond the standard library."""
IMPURE = {"asyncio", "anyio", "logging", "random", "secrets", "socket", "subprocess", "threading", "time"}
"""Standard modules that bring I/O, a clock or chance with them; core/ is given those as arguments."""

FILES = sorted(BROKER.rglob("*.py")) if BROKER.is_dir() else []
CORE = [file for file in FILES if file.is_relative_to(BROKER / "core")]


def is_command(file: Path) -> bool:
    """Commands may import inside their functions: `--help` must not load everything."""
    return layer(file) == "cli"


def layer(file: Path) -> str:
    """`broker/core/names.py` -> core; `broker/cli_keys.py` -> cli; `broker/__init__.py` -> ''."""
    first = file.relative_to(BROKER).parts[0].removesuffix(".py")
    if first == "__init__":
        return ""
    return "cli" if first.startswith("cli") else first


def module(file: Path) -> str:
    parts = file.relative_to(BROKER.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a file imports; of `from x import y`, x.y: y may be a module."""
    package = module(file) if file.name == "__init__.py" else module(file).rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def within(node: ast.AST, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    return (child for child in ast.walk(node) if isinstance(child, kinds))


def backward_arrows(file: Path) -> list[str]:
    here = RANK[layer(file)]
    found: list[str] = []
    for line, name in imports(file):
        first, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        target = "cli" if target.startswith("cli") else target
        # A name that is no layer is something that broker/__init__.py defines.
        if first == "broker" and RANK.get(target, -1) > here:
            found.append(f"{file.name}:{line} {layer(file) or 'broker'} imports {target}")
    return found


def test_a_package_imports_only_from_those_above_it() -> None:
    assert [arrow for file in FILES for arrow in backward_arrows(file)] == []


def test_every_module_has_a_place_in_the_order() -> None:
    assert sorted({layer(file) for file in FILES} - set(RANK)) == []


def impurities(file: Path, standard: frozenset[str]) -> list[str]:
    found: list[str] = []
    for line, name in imports(file):
        first = name.partition(".")[0]
        pure = (first in standard and first not in IMPURE) or first in PURE
        if name.startswith("broker."):
            pure = name.split(".")[1] in {"core", "errors"}
        if not pure:
            found.append(f"{file.name}:{line} {name}")
    return found


def test_core_is_pure(standard: frozenset[str]) -> None:
    assert [impurity for file in CORE for impurity in impurities(file, standard)] == []


def test_core_never_awaits() -> None:
    kinds = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    trees = ((file, ast.parse(file.read_text(encoding="utf-8"))) for file in CORE)
    assert [file.name for file, tree in trees if any(within(tree, *kinds))] == []


def inner_imports(file: Path) -> list[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = within(tree, ast.FunctionDef, ast.AsyncFunctionDef)
    hits = {
        getattr(node, "lineno", 0) for function in functions for node in within(function, ast.Import, ast.ImportFrom)
    }
    return [f"{file.name}:{line}" for line in sorted(hits)]


def test_no_import_stands_inside_a_function() -> None:
    assert [hit for file in FILES if not is_command(file) for hit in inner_imports(file)] == []


def permits(file: Path) -> list[str]:
    """Calls that make a Permit: `Permit(...)`, `policy.Permit(...)`; `replace(permit, ...)` is out of reach here."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    made = [node for node in within(tree, ast.Call) if isinstance(node, ast.Call)]
    named = [node for node in made if getattr(node.func, "id", getattr(node.func, "attr", None)) == "Permit"]
    return [f"{file.relative_to(BROKER).as_posix()}:{node.lineno}" for node in named]


def test_only_the_policy_makes_a_permit() -> None:
    policy = BROKER / "core" / "policy.py"
    assert [hit for file in FILES if file != policy for hit in permits(file)] == []
    assert permits(policy), "the policy makes no Permit: this test looks for the wrong name"


def test_what_answers_a_call_knows_no_store() -> None:
    """No call waits for a database, and none tells by its time whether something hidden is there (I-13)."""
    way = [file for file in FILES if layer(file) in {"core", "guardrails", "upstream", "relay", "downstream"}]
    found = [f"{file.name}:{line}" for file in way for line, name in imports(file) if name.startswith("broker.stores")]
    assert way and found == []


def test_these_tests_saw_the_code() -> None:
    """They look at every file they find, and would pass if they found none."""
    assert CORE
    assert any(name.startswith("broker.core") for file in FILES for _, name in imports(file))


@pytest.mark.parametrize(
    ("path", "code", "expected"),
    [
        ("core/a.py", "from broker.config import model", ["a.py:1 core imports config"]),
        ("core/a.py", "from ..relay import router", ["a.py:1 core imports relay"]),
        ("core/a.py", "from .. import relay", ["a.py:1 core imports relay"]),
        ("core/a.py", "import broker.clock", []),
        ("errors.py", "from broker import clock", []),
        ("clock.py", "from broker.core import era", ["clock.py:1 clock imports core"]),
        ("relay/a.py", "from broker.upstream.link import Link\nfrom .b import c", []),
        ("cli_keys.py", "from broker.app import App", []),
        ("app.py", "def f():\n    from broker import cli_keys", ["app.py:2 app imports cli"]),
        ("__init__.py", "from broker.core import era", ["__init__.py:1 broker imports core"]),
    ],
)
def test_the_checker_sees_an_arrow_that_runs_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, code: str, expected: list[str]
) -> None:
    file = example(tmp_path, monkeypatch, path, code)
    assert backward_arrows(file) == expected


@pytest.mark.parametrize(
    ("code", "is_pure"),
    [
        ("from broker.core.names import x\nimport re, hashlib, orjson", True),
        ("from broker.errors import BrokerError", True),
        ("from mcp_types.version import MODERN_PROTOCOL_VERSIONS", False),
        ("import mcp", False),
        ("from broker import clock", False),
        ("import time", False),
        ("import logging", False),
        ("import pydantic", False),
    ],
)
def test_the_checker_knows_what_is_pure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standard: frozenset[str], code: str, is_pure: bool
) -> None:
    file = example(tmp_path, monkeypatch, "core/a.py", code)
    assert (impurities(file, standard) == []) is is_pure


def test_the_checker_sees_inner_imports_and_permits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from broker.core import policy\ndef f():\n    import os\n    return policy.Permit(1)\n"
    file = example(tmp_path, monkeypatch, "relay/a.py", code)
    assert inner_imports(file) == ["a.py:3"]
    assert permits(file) == ["relay/a.py:4"]


def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, code: str) -> Path:
    """A file of an imaginary broker/ package."""
    root = tmp_path / "broker"
    monkeypatch.setitem(globals(), "BROKER", root)
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(code, encoding="utf-8")
    return file


@pytest.fixture
def standard() -> frozenset[str]:
    return sys.stdlib_module_names
