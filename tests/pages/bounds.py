"""docs/limits.md: every bound, what it is, and what would happen without it; from the settings and the constants."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from broker.config import GuardrailSettings, HttpServer, StdioServer
from tests.test_docs import SECTIONS

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
BROKER = ROOT / "broker"

ROOMS = {
    "downstream": "Callers: connections, sessions, streams",
    "identity": "Credentials",
    "core": "Names, rules, catalogs, messages",
    "relay": "Calls on their way, lists, tasks",
    "upstream": "Servers: processes, connections, discovery",
    "outbound": "Documents that are fetched",
    "guardrails": "Guardrails",
    "outputs": "What tools answer, and their schemas",
    "usage": "Audit, metrics, limits, usage",
    "stores": "Databases",
    "workers": "Workers: several processes on one port",
    "admin": "Administration",
    "config": "Configuration",
    "": "Everywhere",
}
"""Packages of the broker in the order of the page, each with its heading."""
PLACES: dict[type[BaseModel], str] = {
    StdioServer: "servers.*.",
    HttpServer: "servers.*.",
    GuardrailSettings: "guardrails.*.",
}
"""Where a section stands that occurs many times."""
NO_BOUNDS = {"cli", "cli/exits.py", "errors.py:REFUSED", "guardrails/limits.py:FIRST_ID", "guardrails/limits.py:NOBODY"}
"""Numbers with a sentence that bound nothing: by package, file, or name."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A number of the code, with its sentence."""

    file: str
    name: str
    value: float
    sentence: str

    @property
    def room(self) -> str:
        return self.file.partition("/")[0] if "/" in self.file else ""

    @property
    def is_one(self) -> bool:
        return self.room not in NO_BOUNDS and self.file not in NO_BOUNDS and f"{self.file}:{self.name}" not in NO_BOUNDS


def bounds() -> Iterator[Bound]:
    """Public `Final` numbers of modules, with the docstring that follows each."""
    for path in sorted(BROKER.rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for statement, after in zip(body, [*body[1:], ast.Pass()], strict=True):
            match statement, after:
                case (
                    ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="Final"), value=ast.expr() as value),
                    ast.Expr(value=ast.Constant(value=str(sentence))),
                ) if not name.startswith("_") and (number := _number(value)) is not None:
                    yield Bound(path.relative_to(BROKER).as_posix(), name, number, " ".join(sentence.split()))


def _number(value: ast.expr) -> float | None:
    """The value of an expression of numbers; None for anything else."""
    kinds = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)
    if not all(isinstance(node, kinds) for node in ast.walk(value)):
        return None
    found = eval(compile(ast.Expression(value), "", "eval"), {})  # of numbers alone, as was just seen
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def in_words(number: float) -> str:
    """`4 194 304`, `0.5`."""
    return f"{number:,}".replace(",", " ").removesuffix(".0")


def settings() -> Iterator[tuple[str, FieldInfo]]:
    """Settings that are numbers, by their path; one that several kinds of a section share is there once."""
    said: set[tuple[str, str, str]] = set()
    for prefix, model in SECTIONS:
        for name, field in model.model_fields.items():
            if isinstance(field.default, int | float) and not isinstance(field.default, bool):
                path = f"{prefix or PLACES.get(model, '')}{name}"
                row = (path, str(field.default), str(field.description))
                if row not in said:
                    said.add(row)
                    yield path, field


def _range(metadata: list[Any]) -> str:
    parts = ["", ""]
    for one in metadata:
        match one:
            case Ge(ge=low):
                parts[0] = f"from {in_words(low)}"  # type: ignore[arg-type]
            case Gt(gt=low):
                parts[0] = f"above {in_words(low)}"  # type: ignore[arg-type]
            case Le(le=high):
                parts[1] = f"to {in_words(high)}"  # type: ignore[arg-type]
            case Lt(lt=high):
                parts[1] = f"below {in_words(high)}"  # type: ignore[arg-type]
            case _:
                pass
    return " ".join(filter(None, parts))


def page() -> str:
    """docs/limits.md."""
    found = [bound for bound in bounds() if bound.is_one]
    lines = [
        "# Bounds",
        "",
        "Whatever somebody else decides the size, the number or the duration of has a bound here. The first table can",
        "be set in `servers.yaml`; the others are constants, each with the reason that it has. `python -m tests.pages`",
        "writes this page from the code.",
        "",
        "## Settings",
        "",
        "| setting | default | allowed | what it bounds |",
        "|---|---|---|---|",
        *(
            f"| `{name}` | {in_words(field.default)} | {_range(field.metadata)} | {field.description} |"
            for name, field in settings()
        ),
    ]
    for room, title in ROOMS.items():
        rows = [
            f"| {_cell(one.sentence)} | {in_words(one.value)} | `{one.name}` in `{one.file}` |"
            for one in found
            if one.room == room
        ]
        if rows:
            lines += ["", f"## {title}", "", "| what is bounded, and why | value | constant |", "|---|---|---|", *rows]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
