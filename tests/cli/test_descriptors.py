"""Connections and file descriptors: what `serve` makes of its limits when it starts."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from broker.cli.descriptors import fitting
from tests.cli.conftest import Program, wait_until

needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux")


@given(st.integers(1, 20_000), st.integers(0, 20_000), st.integers(1, 20_000))
def test_F78_connections_leave_descriptors_for_the_rest_and_never_all_of_them(
    wanted: int, beside: int, files: int
) -> None:
    total = fitting(wanted, beside, files)
    assert 1 <= total <= wanted
    assert total + min(beside, files // 2) <= files or total == 1
    assert total == wanted or total >= files - beside


def started(program: Program, soft: int, hard: int) -> tuple[str, int, int]:
    """What `serve` says when it starts under these limits of open files, and those that it has then."""
    command = f"ulimit -Sn {soft} && ulimit -Hn {hard} && exec {sys.executable} -m broker serve --port 0"
    with program.errors.open("wb") as errors:
        process = subprocess.Popen(
            ["sh", "-c", command],
            cwd=program.directory,
            env=program.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    program.started.append(process)
    wait_until(lambda: "on http://" in program.errors.read_text(encoding="utf-8"), "it serves")
    limits = Path(f"/proc/{process.pid}/limits").read_text(encoding="ascii")
    line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    has_soft, has_hard = (int(word) for word in line.split()[3:5])
    return program.errors.read_text(encoding="utf-8"), has_soft, has_hard


def configure(program: Program, **server: int) -> None:
    path = program.directory / "servers.yaml"
    path.write_text(yaml.safe_dump({"server": server, "servers": {}}), encoding="utf-8")


@needs_proc
def test_F78_the_limit_of_open_files_is_raised_as_far_as_connections_need_and_no_further(program: Program) -> None:
    configure(program, max_connections=300)
    said, soft, hard = started(program, 100, 2000)
    assert 300 < soft < 600 and hard == 2000
    assert "connections are let in at once" not in said


@needs_proc
def test_F78_what_does_not_fit_is_said_with_the_limit_that_would_do(program: Program) -> None:
    configure(program, max_connections=2000)
    said, soft, hard = started(program, 100, 600)
    words = " ".join(said.split())
    assert soft == hard == 600
    assert "at most 472 connections are let in at once, not 2000" in words
    assert "to 2128, or set server.max_connections" in words
