"""The plots of the benchmark: what was measured is on them."""

from pathlib import Path
from typing import Any

import numpy
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from bench import against, growth, plots


def grown(axis: str, *points: tuple[int, float, float]) -> list[dict[str, Any]]:
    return [
        {"axis": axis, "value": value, "mib": mib, "list": 0.01, "start": 1.5, "broker": {"cpu_per_call": cpu / 1000}}
        for value, cpu, mib in points
    ]


def test_every_point_is_inside_its_panel_whatever_the_others_show() -> None:
    figure = plots.grown("tools", grown("tools", (10, 0.5, 80), (100, 0.6, 300)))
    assert len(figure.axes) == len(plots.SHOWN)
    for panel in figure.axes:
        bottom, top = panel.get_ylim()
        shown = [float(value) for line in panel.lines for value in numpy.asarray(line.get_ydata())]
        assert len(shown) == 2 and all(bottom <= value <= top for value in shown)


def test_each_gateway_has_a_bar_and_ours_is_told_apart() -> None:
    row = {"case": "x", "caller": "modern", "callers": 16, "nginx": {"rate": 9.0}, "broker": {"rate": 3.0}}
    [panel] = plots.peers([row, {**row, "callers": 1}]).axes
    assert [bar.get_width() for bar in panel.patches if isinstance(bar, Rectangle)] == [9.0, 3.0]
    assert [to_hex(bar.get_facecolor()) for bar in panel.patches] == [plots.OTHERS, plots.BROKER]


def test_a_file_is_drawn_for_each_axis_that_was_measured(tmp_path: Path) -> None:
    assert plots.draw(tmp_path, {"Idle memory": [{}]}) == []
    rows = [*grown("tools", (10, 0.5, 80)), *grown("keys", (1, 0.5, 80), (10, 0.5, 81))]
    drawn = plots.draw(tmp_path, {growth.TITLE: rows, against.TITLE: []})
    assert [file.name for file in drawn] == ["growth-tools.png", "growth-keys.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in drawn)
