"""Tables, as they are printed and as they are kept."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rich.table
from rich.console import Console


@dataclass(slots=True)
class Table:
    """Rows of text, and the values behind them."""

    title: str
    columns: Sequence[str]
    note: str = ""
    rows: list[list[str]] = field(default_factory=list[list[str]])
    data: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def add(self, *cells: str) -> None:
        """A row."""
        self.rows.append(list(cells))

    def add_all(self, rows: Iterable[list[str]]) -> None:
        """Rows."""
        self.rows.extend(rows)

    def keep(self, values: dict[str, Any]) -> None:
        """The values behind a row, for machines."""
        self.data.append(values)

    def show(self, console: Console) -> None:
        """Print it."""
        shown = rich.table.Table(title=self.title, caption=self.note.replace("`", ""), caption_justify="left")
        for column in self.columns:
            shown.add_column(column, justify="right" if is_numeric(self, column) else "left", overflow="fold")
        for row in self.rows:
            shown.add_row(*row, style="bold" if "broker" in row else None)
        console.print(shown)

    def dictionaries(self) -> list[dict[str, str]]:
        """The rows, for a table whose values are its text."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def markdown(self) -> str:
        """The same for a file."""
        rules = ("---:" if is_numeric(self, column) else "---" for column in self.columns)
        lines = [f"## {self.title}", "", self.note, ""] if self.note else [f"## {self.title}", ""]
        lines += [row_markdown(self.columns), row_markdown(rules), *map(row_markdown, self.rows)]
        return "\n".join(lines)


def is_numeric(table: Table, column: str) -> bool:
    """Whether a column holds numbers, which are aligned on the right."""
    index = list(table.columns).index(column)
    return all(not row[index] or row[index].lstrip("+-")[:1].isdigit() for row in table.rows)


def row_markdown(cells: Iterable[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def milliseconds(seconds: float) -> str:
    """A time: three digits that count."""
    value = seconds * 1000
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def number(value: float) -> str:
    """A rate."""
    return f"{value:,.0f}".replace(",", " ")


def ratio(value: float) -> str:
    """A share of something else."""
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def write(directory: Path, facts: Mapping[str, str], tables: Sequence[Table]) -> dict[str, list[dict[str, Any]]]:
    """RESULTS.md for people, results.json for machines; what is in the latter, by the titles of the tables."""
    directory.mkdir(parents=True, exist_ok=True)  # before anything else: minutes of measuring must not be lost
    lines = [
        "# Results of the benchmarks",
        "",
        "Written by `python -m bench`. Compare within a run, never between runs on a machine that others use too.",
        "",
    ]
    lines += [row_markdown(("what", "value")), row_markdown(("---", "---")), *map(row_markdown, facts.items())]
    text = "\n".join(lines) + "\n\n" + "\n\n".join(table.markdown() for table in tables) + "\n"
    (directory / "RESULTS.md").write_text(text)
    kept = {table.title: table.data or list(table.dictionaries()) for table in tables}
    (directory / "results.json").write_text(json.dumps({"facts": dict(facts), "tables": kept}, indent=1) + "\n")
    return kept
