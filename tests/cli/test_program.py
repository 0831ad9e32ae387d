"""What is fast, what is documented, what is offered by the shell, and how faults end."""

import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from broker import cli, logs
from broker.cli import words
from tests.cli.conftest import LIMIT, Program
from tests.peers import ROOT

HEAVY = {"mcp", "mcp_types", "yaml", "anyio", "aiohttp", "uvicorn", "starlette", "orjson", "uvloop", "sqlalchemy"}
TYPER_S_OWN = {"pydantic"}
"""What typer, from 0.29 on, loads itself as soon as it reads the options of one command."""
LIGHT = {
    "broker.cli",
    "broker.cli.administration",
    "broker.cli.exits",
    "broker.cli.narrowing",
    "broker.cli.options",
}
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
GROUP = typer.main.get_command(cli.app)


def commands(group: Any, prefix: str = "") -> dict[str, Any]:
    """Every command, those below groups too, by its words."""
    found: dict[str, Any] = {}
    for name, one in group.commands.items():
        found |= commands(one, f"{prefix}{name} ") if hasattr(one, "commands") else {f"{prefix}{name}": one}
    return found


COMMANDS = commands(GROUP)


HELP = [["--help"], ["--version"], *([*command.split(), "--help"] for command in COMMANDS)]
LOADED = """
import contextlib, io, json, sys
from broker.cli import main
seen = set()
for args in json.loads(sys.argv[1]):
    sys.argv = ["mcp-broker", *args]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main()
    print(json.dumps(sorted(set(sys.modules) - seen)))
    seen |= set(sys.modules)
"""


def test_help_loads_nothing_heavy(program: Program) -> None:
    """One interpreter for all of them: whatever one loads, it is the first to load, so it is seen at that one."""
    argv = [sys.executable, "-c", LOADED, json.dumps(HELP)]
    done = subprocess.run(
        argv, cwd=program.directory, env=program.environment, capture_output=True, timeout=LIMIT, check=True
    )
    for args, line in zip(HELP, done.stdout.decode().splitlines(), strict=True):
        modules = set(json.loads(line))
        heavy = HEAVY if len(args) > 1 else HEAVY | TYPER_S_OWN
        assert {name for name in modules if name.split(".")[0] in heavy} == set(), args
        assert {name for name in modules if name.startswith("broker.")} <= LIGHT, args


def test_the_version_is_printed(program: Program) -> None:
    program.is_forked = False
    assert re.fullmatch(r"mcp-broker \d+\.\d+\.\d+\n", program.run("--version").out)


def test_help_names_the_exit_codes(program: Program) -> None:
    for args in (["--help"], ["call", "--help"]):
        words = " ".join(program.run(*args).out.split())
        assert "Exit codes: 0 it worked; 1 it did not" in words


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_documented(command: str) -> None:
    assert f"mcp-broker {command}" in PAGE
    assert f"`{command.split()[0]}`" in PAGE
    parameters = [*COMMANDS[command].params, *GROUP.params]
    options = {option for one in parameters for option in one.opts if option.startswith("-")}
    assert {option for option in options if f"`{option}" not in PAGE and f"{option} " not in PAGE} == set()


def complete(program: Program, words: str, **env: str) -> list[str]:
    asked = {"_MCP_BROKER_COMPLETE": "complete_bash", "COMP_WORDS": f"mcp-broker {words}"}
    done = program.run(env={**asked, "COMP_CWORD": str(len(words.split(" "))), **env})
    assert done.err == ""
    return done.out.split()


def test_names_that_were_seen_are_completed_without_starting_anything(program: Program) -> None:
    program.configure(one=program.plain(), two={"command": "x"})
    assert complete(program, "call on") == []
    assert program.run("catalog").code == 0
    assert "one__echo" in complete(program, "call one__e")
    assert complete(program, "prompt one__g") == ["one__greet"]
    assert complete(program, "read one+probe://static/r")
    assert complete(program, "catalog --view t") == ["two"]
    assert complete(program, "catal") == ["catalog"]


def test_completion_is_silent_whatever_is_wrong(program: Program) -> None:
    assert complete(program, "call x") == []
    (program.directory / "servers.yaml").write_text("servers: [", encoding="utf-8")
    assert complete(program, "call x") == []


def test_a_fault_of_the_broker_is_one_line_and_a_trace_only_when_debugging(program: Program) -> None:
    script = (
        "import sys, logging\nfrom broker import cli\nfrom broker.cli import ask\n"
        "def fail(*args, **more):\n"
        "    from broker import logs\n    logs.configure(more['level'])\n    raise ValueError('a\\nb')\n"
        "ask.ask = fail\nsys.argv = ['mcp-broker', 'read', 'x', *sys.argv[1:]]\ncli.main()"
    )
    errors = {}
    for level in ("error", "debug"):
        argv = [sys.executable, "-c", script, "--log-level", level]
        done = subprocess.run(
            argv, cwd=program.directory, env=program.environment, capture_output=True, timeout=LIMIT, check=False
        )
        assert done.returncode == 1
        errors[level] = done.stderr.decode()
    assert errors["error"].count("\n") == 1
    assert "a fault of the broker: ValueError" in errors["error"]
    assert "Traceback" in errors["debug"]


def test_a_reader_that_has_enough_is_no_fault(program: Program, tmp_path: Path) -> None:
    program.configure(one=program.plain("--tools", "500"))
    process = program.start("catalog", "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(LIMIT) in (0, 1)
    assert "Traceback" not in program.errors.read_text(encoding="utf-8")
    assert "Exception" not in program.errors.read_text(encoding="utf-8")


def test_a_log_record_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    root, broker = logging.getLogger(), logging.getLogger("broker")
    before = root.handlers[:], root.level, broker.level, logging.raiseExceptions
    try:
        logs.configure("info")
        logging.getLogger("broker.x").info("name %s", "a\x1b[2J\nb\x9b")
        logging.getLogger("uvicorn.error").info("not shown")
        logging.getLogger("broker.x").error("broken", exc_info=ValueError("why\r"))
    finally:
        root.handlers[:], root.level, broker.level = before[:3]
        logging.raiseExceptions = before[3]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("name a\\x1b[2J\\nb\\x9b")
    assert lines[1].endswith("broken: ValueError: why\\r")


def test_text_of_others_is_made_harmless() -> None:
    assert words.line("a\n b\x1b]8;;x\x07", 100) == "a b\\x1b]8;;x\\x07"
    assert words.block("a\r\nb\tc\rd\x07") == "a\nb\tc\\rd\\x07"
