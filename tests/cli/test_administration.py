"""`org`, `team`, `member` and `key` as people and scripts use them: the real program, a real store."""

import io
import json
import logging
import os
import pty
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from broker import cli
from broker.cli import moments
from broker.cli.exits import Stop
from broker.config import Secret
from broker.identity.keys import hash_of
from tests.cli.conftest import LIMIT, Done, Program
from tests.cli.test_program import complete

KEY = re.compile(r"mcpb_[a-z2-7]{12}_[A-Za-z0-9_-]{43}")


class Inside:
    """The program within this process, where a test has many commands: each would load the database's driver anew."""

    def __init__(self, program: Program, patch: pytest.MonkeyPatch, output: pytest.CaptureFixture[str]) -> None:
        self.program, self._patch, self._output = program, patch, output

    def run(self, *args: str) -> Done:
        root, ours = logging.getLogger(), logging.getLogger("broker")
        before = root.handlers[:], root.level, ours.level, logging.raiseExceptions
        with self._patch.context() as patch:
            patch.chdir(self.program.directory)
            patch.setenv("XDG_STATE_HOME", self.program.environment["XDG_STATE_HOME"])
            patch.setattr(sys, "argv", ["mcp-broker", *args])
            patch.setattr(sys, "stdin", io.StringIO())
            try:
                with pytest.raises(SystemExit) as ended:
                    cli.main()
            finally:
                root.handlers[:], root.level, ours.level, logging.raiseExceptions = before
        said = self._output.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Done(code, said.out, said.err)


@pytest.fixture
def inside(house: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    return Inside(house, monkeypatch, capsys)


@pytest.fixture
def house(program: Program) -> Program:
    """A file with the servers sql and docs, and in the organization acme the team ops."""
    program.configure(sql={"command": "x"}, docs={"command": "x"})
    path = program.directory / "servers.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    teams = {"ops": {"keys": {"robot": {"hash": "a" * 64}}}}
    document["organizations"] = {"acme": {"allow": [{"servers": ["*"]}], "teams": teams}}
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return program


def state(program: Program) -> Path:
    return Path(program.environment["XDG_STATE_HOME"]) / "mcp-broker"


def run_json(program: Program | Inside, *args: str) -> dict[str, object]:
    done = program.run(*args, "--json")
    assert (done.code, done.err) == (0, ""), done.err
    return json.loads(done.out)


def test_a_script_makes_a_key_and_gets_nothing_else_on_stdout(house: Program) -> None:
    assert house.run("team", "create", "acme/data").code == 0
    made = run_json(house, "key", "create", "--team", "acme/data", "--name", "ci", "--expires", "30d")
    assert list(made) == ["id", "key"]
    assert KEY.fullmatch(str(made["key"])) and str(made["id"]) in str(made["key"])
    shown = run_json(house, "key", "show", str(made["id"]))
    assert (shown["state"], shown["team"], shown["role"]) == ("active", "data", "member")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", str(shown["expires"]))
    assert shown == run_json(house, "key", "show", "acme/data/ci")


def test_a_key_is_shown_once_with_a_sentence_that_says_so_and_is_nowhere_on_disk(house: Program) -> None:
    done = house.run("key", "create", "--team", "acme/ops", "--name", "ci")
    text = done.out.strip()
    assert done.code == 0 and KEY.fullmatch(text)
    assert "This is the only time that it is shown: keep it now." in done.err
    for path in (path for path in state(house).rglob("*") if path.is_file()):
        data = path.read_bytes()
        assert text.encode() not in data and text[-43:].encode() not in data, path
        assert path.stat().st_mode & 0o077 == 0, path
    rest = [house.run("key", *args) for args in (["list"], ["list", "--json"], ["show", "acme/ops/ci"])]
    assert not any(text in one.out + one.err for one in rest)


def test_the_life_of_a_key(inside: Inside) -> None:
    key = str(run_json(inside, "key", "create", "--org", "acme", "--name", "ci")["id"])
    rotated = run_json(inside, "key", "rotate", key, "--overlap", "1h")
    assert rotated["id"] == key and KEY.fullmatch(str(rotated["key"]))
    granted = run_json(
        inside,
        "key",
        "grant",
        key,
        "--allow",
        '{"servers": ["sql"]}',
        "--deny",
        "{tools: ['*__drop*']}",
        "--allow",
        "[]",
    )
    assert (granted["allow"], granted["deny"]) == ([{"servers": ["sql"]}], [{"tools": ["*__drop*"]}])
    assert run_json(inside, "key", "grant", key, "--allow", "null")["allow"] is None
    limits = {"rate": ["20/minute"], "concurrency": 2}
    assert run_json(inside, "key", "grant", key, "--limits", "{rate: [20/minute], concurrency: 2}")["limits"] == limits
    assert "{rate: [20/minute], concurrency: 2}" in inside.run("key", "show", key).out
    assert run_json(inside, "key", "grant", key, "--limits", "null")["limits"] is None
    moved = run_json(inside, "key", "move", key, "--team", "acme/ops")
    assert (moved["team"], moved["deny"]) == ("ops", [{"tools": ["*__drop*"]}])
    rows = [row.split("\t") for row in inside.run("key", "list").out.splitlines()]
    assert rows[0] == ["id", "name", "place", "role", "state", "created", "expires", "rotated", "source"]
    assert [row[:5] for row in rows[1:]] == [
        ["robot", "robot", "acme/ops", "member", "active"],
        [key, "ci", "acme/ops", "member", "active"],
    ]
    assert rows[2][7], "the last rotation"
    assert inside.run("key", "revoke", key, "--yes").out == f"revoked key {key}, acme/ops/ci\n"
    assert run_json(inside, "key", "show", key)["state"] == "revoked"
    assert inside.run("key", "delete", key, "--yes").code == 0
    assert inside.run("key", "show", key).code == 1


def test_a_key_for_the_file_is_stored_nowhere(house: Program, inside: Inside) -> None:
    made = run_json(inside, "key", "create", "--for-file", "--name", "robot")
    assert list(made) == ["name", "key", "hash"] and not (state(house) / "broker.db").exists()
    secret = Secret((state(house) / "key_secret").read_text(encoding="ascii").strip())
    assert hash_of(str(made["key"]), secret) == made["hash"]
    assert stat.S_IMODE((state(house) / "key_secret").stat().st_mode) == 0o600
    said = inside.run("key", "create", "--for-file", "--name", "robot")
    text, line = said.out.splitlines()
    assert KEY.fullmatch(text) and yaml.safe_load(line)["robot"]["hash"] == hash_of(text, secret)
    assert "it is not stored: keep it now" in said.err


def test_organizations_teams_and_members(inside: Inside) -> None:
    created = run_json(inside, "org", "create", "beta", "--allow", "{servers: ['*']}")
    assert (created["name"], created["allow"], created["source"]) == ("beta", [{"servers": ["*"]}], "database")
    assert "nobody in it may use anything yet" in inside.run("org", "create", "gamma").err
    assert run_json(inside, "team", "create", "beta/data", "--deny", "{servers: [sql]}")["deny"] == [
        {"servers": ["sql"]}
    ]
    listed = run_json(inside, "org", "list")["organizations"]
    assert isinstance(listed, list) and [one["name"] for one in listed] == ["acme", "beta", "gamma"]
    assert inside.run("team", "list", "--org", "beta").out.splitlines()[1].startswith("beta/data\tdatabase\t")
    ada = "jwt:https://login.acme.dev ada"
    assert (
        run_json(inside, "member", "grant", ada, "--team", "beta/data", "--role", "team-admin")["role"] == "team-admin"
    )
    assert (
        inside.run("member", "list", "--org", "beta").out.splitlines()[1] == f"{ada}\tbeta/data\tteam-admin\tdatabase"
    )
    assert inside.run("member", "delete", ada, "--team", "beta/data", "--yes").code == 0
    assert inside.run("key", "create", "--team", "beta/data", "--name", "ci").code == 0
    assert inside.run("org", "delete", "beta", "--yes").out == "deleted organization beta, 1 team and 1 key\n"
    assert "allow" in inside.run("org", "show", "acme").out


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (
            ["key", "create", "--team", "acme/osp", "--name", "ci"],
            1,
            'there is no team acme/osp. Did you mean "acme/ops"?',
        ),
        (["key", "create", "--team", "acne/ops", "--name", "ci"], 1, 'Did you mean "acme"?'),
        (["key", "create", "--team", "acme", "--name", "ci"], 2, "write ORGANIZATION/TEAM"),
        (["key", "create", "--name", "ci"], 2, "name a place: --team ORGANIZATION/TEAM, or --org ORGANIZATION"),
        (["key", "create", "--team", "acme/ops", "--name", "C I"], 2, "a name must be"),
        (["key", "create", "--team", "acme/ops", "--name", "robot"], 1, "in the configuration file"),
        (["key", "create", "--team", "acme/ops", "--name", "ci", "--expires", "2020-01-01"], 2, "in the past"),
        (["key", "create", "--team", "acme/ops", "--name", "ci", "--expires", "soon"], 2, "'soon' is no date"),
        (["key", "create", "--team", "acme/ops", "--name", "ci", "--role", "king"], 2, "king"),
        (["key", "create", "--team", "acme/ops", "--name", "ci", "--allow", "{srevers: [x]}"], 2, 'mean "servers"'),
        (["key", "create", "--team", "acme/ops", "--name", "ci", "--allow", "{servers: [sqk]}"], 2, 'mean "sql"'),
        (["key", "create", "--team", "acme/ops", "--name", "ci", "--allow", "{"], 2, "neither JSON nor YAML"),
        (["key", "create", "--team", "acme/ops", "--name", "ci", "--limits", "{"], 2, "neither JSON nor YAML"),
        (["key", "create", "--team", "acme/ops", "--name", "ci", "--limits", "5/minute"], 2, "must be an object"),
        (["key", "create", "--team", "acme/ops", "--name", "ci", "--limits", "{rate: 5/era}"], 2, "as in 100/minute"),
        (["team", "grant", "acme/ops", "--allow", "[]"], 1, "defined in the configuration file: change it there"),
        (["key", "rotate", "acme/ops/robot"], 1, "defined in the configuration file: change it there"),
        (["key", "show", "abcdefghijkl"], 1, "there is no key 'abcdefghijkl'"),
        (["key", "rotate", "abcdefghijkl", "--overlap", "long"], 2, "'long' is no duration"),
        (["key", "revoke", "abcdefghijkl"], 2, "add --yes"),
        (["member", "grant", "ada", "--team", "acme/ops", "--role", "member"], 2, "a member is jwt:"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said_with_a_remedy(inside: Inside, args: list[str], code: int, expected: str) -> None:
    done = inside.run(*args)
    assert (done.code, done.out) == (code, "")
    assert expected in done.err and "Traceback" not in done.err


def test_on_a_terminal_a_destructive_command_asks(house: Program, inside: Inside) -> None:
    key = str(run_json(inside, "key", "create", "--org", "acme", "--name", "ci")["id"])
    for answer, code in (("n\n", 1), ("y\n", 0)):
        near, far = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "broker", "key", "revoke", key],
            cwd=house.directory,
            env=house.environment,
            stdin=far,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.close(far)
        os.write(near, answer.encode())
        out, err = process.communicate(timeout=LIMIT)
        os.close(near)
        assert process.returncode == code, err
        assert b"It cannot be undone." in err and (b"revoked" in out) is (code == 0)


def test_a_store_that_cannot_be_used_is_said(house: Program) -> None:
    state(house).mkdir(parents=True)
    (state(house) / "broker.db").write_bytes(b"no database" * 1000)
    done = house.run("key", "list")
    assert (done.code, done.out) == (1, "") and "is no SQLite database. Restore it from a backup" in done.err


def test_a_key_secret_that_is_lost_is_not_made_anew_in_silence(house: Program, inside: Inside) -> None:
    first = str(run_json(inside, "key", "create", "--org", "acme", "--name", "ci")["id"])
    (state(house) / "key_secret").unlink()
    for args in (["key", "create", "--org", "acme", "--name", "other"], ["key", "rotate", first]):
        done = inside.run(*args)
        assert (done.code, done.out) == (1, "") and "Restore it from a backup" in done.err
    assert not (state(house) / "key_secret").exists()
    assert inside.run("key", "delete", first, "--yes").code == 0
    assert KEY.fullmatch(inside.run("key", "create", "--org", "acme", "--name", "ci").out.strip())


def test_names_and_ids_are_completed(house: Program, inside: Inside) -> None:
    assert complete(house, "team show ac") == ["acme/ops"], "before there is a store"
    assert inside.run("team", "create", "acme/data").code == 0
    key = str(run_json(inside, "key", "create", "--team", "acme/data", "--name", "ci")["id"])
    assert complete(house, "team show acme/") == ["acme/ops", "acme/data"]
    assert complete(house, "org show a") == ["acme"]
    assert complete(house, f"key rotate {key[:3]}") == [key]
    assert complete(house, "key create --team acme/d") == ["acme/data"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2027-01-01", 1798761600.0),
        ("2027-01-01T12:00:00Z", 1798804800.0),
        ("2027-01-01T12:00", 1798804800.0),
        ("2027-01-01T12:00:00+01:00", 1798801200.0),
        ("30d", 1000.0 + 30 * 86400),
        ("90m", 6400.0),
    ],
)
def test_moments_are_read_in_utc(text: str, expected: float) -> None:
    assert moments.moment(text, 1000.5) == expected
    assert moments.moment(moments.shown(expected) or "", 0) == expected


@pytest.mark.parametrize("text", ["", "2027", "2027-13-01", "tomorrow", "-3d", "3 d", "20270101", "2027-01-01T25:00"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(Stop, match="is no date"):
        moments.moment(text, 0)


def test_reading_makes_no_database_and_says_that_there_is_none(inside: Inside) -> None:
    state = Path(inside.program.environment["XDG_STATE_HOME"])
    for command in (("org", "list"), ("team", "list"), ("key", "list"), ("org", "show", "acme")):
        done = inside.run(*command)
        assert done.code == 0 and "there is no database yet" in done.err, done.err
    assert "acme" in inside.run("org", "list").out
    assert [one["id"] for one in json.loads(inside.run("key", "list", "--json").out)["keys"]] == ["robot"]
    missing = inside.run("key", "show", "a" * 12)
    assert missing.code == 1 and "there is no key" in missing.err
    assert not list(state.rglob("broker.db*"))
