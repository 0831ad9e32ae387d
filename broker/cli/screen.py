"""What a person sees: results on stdout, everything else on stderr; trees, tables and colours on a terminal only.

Text of an upstream is never given to the terminal as it is: it could move the cursor, hide what stands beside it, or
be read as markup (I-40). `words.py` makes it harmless, and rich gets it as `Text`, in which nothing is markup.
"""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from rich import box
from rich.bar import Bar
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

_BAR: Final = 24
"""Characters of a bar that is full."""


@dataclass(frozen=True)
class Node:
    """A row of a tree: what it is called, what is said of it, and what is below it."""

    label: str
    detail: str = ""
    style: str = ""
    children: Sequence["Node"] = field(default_factory=tuple["Node", ...])


class Screen:
    """The two streams of a command."""

    def __init__(self) -> None:
        self.out = Console(highlight=False, markup=False, emoji=False)
        self.err = Console(stderr=True, highlight=False, markup=False, emoji=False)

    def say(self, text: str, style: str = "") -> None:
        """Lines on stdout, as they are: they have been made harmless."""
        self._print(self.out, text, style)

    def note(self, text: str, style: str = "") -> None:
        """Lines on stderr."""
        self._print(self.err, text, style)

    def json(self, value: Any) -> None:
        """A value on stdout, in ASCII: no terminal and no encoding can read anything into it."""
        print(json.dumps(value, indent=2))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str], words: int) -> None:
        """A table; fields between tabs, if nobody looks. `styles`: of the rows; the first `words` columns are text,
        the others numbers, which end at one edge."""
        if not self.out.is_terminal:
            for row in (header, *rows):
                print("\t".join(row))
            return
        table = _empty_table(header, words)
        for row, style in zip(rows, styles, strict=True):
            table.add_row(*(Text(cell) for cell in row), style=style)
        self.out.print(table)

    def bars(self, header: Sequence[str], rows: Sequence[Sequence[str]], shares: Sequence[float], words: int) -> None:
        """A table with a bar in each row, of `shares` (0 to 1) of its column; without the bars, if nobody looks."""
        if not self.out.is_terminal:
            return self.table(header, rows, [""] * len(rows), words)
        table = _empty_table(header, words)
        table.add_column("", min_width=_BAR, max_width=_BAR)
        for row, share in zip(rows, shares, strict=True):
            full = share >= 1
            table.add_row(*map(Text, row), Bar(1.0, 0.0, min(share, 1.0), width=_BAR, color="red" if full else "cyan"))
        self.out.print(table)

    def tree(self, root: Node) -> None:
        """A tree, its lines cut at the width of the terminal; indented whole lines, if nobody looks."""
        if not self.out.is_terminal:
            for depth, node in _walk(root):
                print("  " * depth + (f"{node.label}  {node.detail}" if node.detail else node.label))
            return
        self.out.print(_grown(root, Tree(_row(root), guide_style="dim")))

    @contextmanager
    def progress(self) -> Generator[Progress, None, None]:
        """A bar on stderr that is gone when its work is done; invisible if nobody looks."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
        )
        with Progress(
            *columns,
            console=self.err,
            transient=True,
            disable=not self.err.is_terminal,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as progress:
            yield progress

    def _print(self, console: Console, text: str, style: str) -> None:
        if console.is_terminal:
            console.print(Text(text, style), soft_wrap=True)
        else:
            print(text, file=console.file)


def _empty_table(header: Sequence[str], words: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, name in enumerate(header):
        table.add_column(Text(name), justify="left" if index < words else "right", no_wrap=True)
    return table


def _walk(node: Node, depth: int = 0) -> Iterator[tuple[int, Node]]:
    yield depth, node
    for child in node.children:
        yield from _walk(child, depth + 1)


def _row(node: Node) -> Text:
    row = Text(node.label, node.style, no_wrap=True, overflow="ellipsis")
    return row.append(f"  {node.detail}", "dim") if node.detail else row


def _grown(node: Node, tree: Tree) -> Tree:
    for child in node.children:
        _grown(child, tree.add(_row(child)))
    return tree
