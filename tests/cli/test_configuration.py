"""What is wrong with the file or the command line is said at once, and nothing is started."""

import json

import pytest

from tests.cli.conftest import Program

BROKEN = """\
servers:
  one:
    command: {python}
    args: [-c, "open('started', 'w')"]
  one:
    command: other
  two:
    comand: python
  three:
    url: http://127.0.0.1:9/mcp
    timeout: soon
    prefix: four
    tools: {{deny: [""]}}
  four:
    command: python
"""


def write_broken(program: Program) -> None:
    (program.directory / "servers.yaml").write_text(BROKEN.format(python="python3"), encoding="utf-8")


@pytest.mark.parametrize("command", [["check"], ["serve", "--port", "0"], ["stdio"], ["catalog"], ["call", "one__x"]])
def test_every_problem_is_said_with_its_line_and_nothing_is_started(program: Program, command: list[str]) -> None:
    write_broken(program)
    done = program.run(*command)
    assert done.code == 2
    assert done.out == ""
    for place in ("5: servers.one", "8: servers.two.comand", "11: servers.three.timeout", "12: servers.three.prefix"):
        assert f"servers.yaml:{place}" in done.err
    assert "Did you mean" in done.err
    assert "servers.yaml:13" in done.err
    assert "nothing was started" in done.err
    assert not (program.directory / "started").exists()


def test_problems_are_readable_by_machines(program: Program) -> None:
    write_broken(program)
    done = program.run("check", "--json")
    report = json.loads(done.out)
    assert done.code == 2
    assert report["ok"] is False
    assert {5, 8, 11, 12} <= {problem["line"] for problem in report["problems"]}


def test_without_a_configuration_it_is_said_where_one_is_looked_for(program: Program) -> None:
    done = program.run("check")
    assert done.code == 2
    assert "servers.yaml" in done.err
    assert "MCP_BROKER_CONFIG" in done.err
    assert "--config" in done.err


def test_the_environment_names_the_configuration_where_there_is_no_usual_one(program: Program) -> None:
    other = program.configure("other.yaml", time={"command": "x"})
    env = {"MCP_BROKER_CONFIG": str(other)}
    assert "other.yaml: the configuration is fine, 1 server\n" in program.run("check", env=env).out
    program.configure(one={"command": "x"}, two={"command": "x"})
    assert "servers.yaml: the configuration is fine, 2 servers\n" in program.run("check", env=env).out


def test_the_file_of_another_host_is_read(program: Program) -> None:
    path = program.directory / "claude.json"
    path.write_text(json.dumps({"mcpServers": {"time": {"command": "x", "args": []}}}), encoding="utf-8")
    assert program.run("check", "--config", str(path)).code == 0


def test_warnings_do_not_fail(program: Program) -> None:
    program.configure(files={"command": "npx", "args": ["some-package"]})
    done = program.run("check")
    assert done.code == 0
    assert "warning: servers.yaml:" in done.err
    assert json.loads(program.run("check", "--json").out)["warnings"]


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["serve", "--port", "70000"],
        ["call"],
        ["check", "--log-level", "loud"],
        ["catalog", "--view", "x"],
    ],
)
def test_a_wrong_command_line_ends_with_2(program: Program, args: list[str]) -> None:
    program.configure(time={"command": "x"})
    assert program.run(*args).code == 2
