"""The plots of the results: `python -m bench.plots` draws those of results.json again."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import against, growth

Rows = Sequence[Mapping[str, Any]]
DPI: Final = 120
BROKER: Final = "#1f6f8b"
OTHERS: Final = "#b8c4cc"


def draw(directory: Path, tables: Mapping[str, Rows]) -> list[Path]:
    """A file for the peers and one for each axis of growth, as far as they were measured, in `directory`; `tables` are
    those of results.json.
    """
    matplotlib.use("agg")
    figures: dict[str, Figure] = {}
    if tables.get(against.TITLE):
        figures["peers.png"] = peers(tables[against.TITLE])
    rows = tables.get(growth.TITLE, ())
    for axis in dict.fromkeys(row["axis"] for row in rows):
        figures[f"growth-{axis}.png"] = grown(axis, [row for row in rows if row["axis"] == axis])
    for name, figure in figures.items():
        figure.savefig(directory / name, dpi=DPI, metadata={"Software": None})
    return [directory / name for name in figures]


def peers(rows: Rows) -> Figure:
    """Calls per second with many callers, a bar for each gateway, a panel for each era."""
    most = max(row["callers"] for row in rows)
    rows = [row for row in rows if row["callers"] == most]
    figure = Figure(figsize=(9, 1.2 + 1.6 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    highest = max(one["rate"] for row in rows for one in row.values() if isinstance(one, dict))
    for panel, row in zip(panels, rows, strict=True):
        rates = {name: one["rate"] for name, one in row.items() if isinstance(one, dict)}
        colors = [BROKER if name in against.OURS else OTHERS for name in rates]
        bars = panel.barh(list(rates), list(rates.values()), color=colors)
        panel.bar_label(bars, fmt="{:,.0f}", padding=3)
        title = f"calls per second, {row['callers']} {row['caller']} callers, one core"
        panel.set(xscale="log", xlim=(1, highest * 3), title=title)
        panel.invert_yaxis()
        plain(panel)
    return figure


SHOWN: Final[Mapping[str, Callable[[Mapping[str, Any]], float]]] = {
    "CPU for a call, ms": lambda row: row["broker"]["cpu_per_call"] * 1000,
    "tools/list, ms": lambda row: row["list"] * 1000,
    "start, s": lambda row: row["start"],
    "memory, MiB": lambda row: row["mib"],
}


def grown(axis: str, rows: Rows) -> Figure:
    """What a call, a list, the start and memory cost with more and more of something; each panel begins at zero."""
    figure = Figure(figsize=(3 * len(SHOWN), 2.8), layout="constrained")
    panels = figure.subplots(1, len(SHOWN), squeeze=False)[0]
    for panel, (what, value) in zip(panels, SHOWN.items(), strict=True):
        values = [value(row) for row in rows]
        panel.plot([row["value"] for row in rows], values, marker="o", color=BROKER)
        panel.set(xscale="log", xlabel=axis, ylim=(0, max(values) * 1.1 or 1), title=what)
        plain(panel)
    return figure


def plain(panel: Axes) -> None:
    """Without the lines that say nothing."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="both", alpha=0.25)


if __name__ == "__main__":
    here = Path(__file__).parent
    for file in draw(here, json.loads((here / "results.json").read_text())["tables"]):
        print(file.name)
