"""`explain` and `catalog --as`: what somebody else sees, and why. The real program, a real server, a real store."""

import json

import pytest
import yaml

from broker.config import Secret
from broker.identity.keys import hash_of, mint
from tests.cli.conftest import Program

KEY_SECRET = "s" * 40
MADE = mint(b"k" * 40)
TEAM = {
    "allow": [{"servers": ["one"], "tools": ["one__echo", "one__add"]}],
    "deny": [{"tools": ["one__echo"], "when": {"args.text": {"in": ["secret"]}}}],
    "keys": {
        "ci": {"hash": hash_of(MADE.text.reveal(), Secret(KEY_SECRET)), "deny": [{"tools": ["one__add"]}]},
        "old": {"hash": "b" * 64, "expires": "2027-01-01"},
    },
}


@pytest.fixture
def house(program: Program) -> Program:
    """One server; acme/data may use two of its tools, and its key ci only one."""
    path = program.configure(one=program.plain(), two=program.plain())
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["organizations"] = {"acme": {"allow": [{"servers": ["*"]}], "teams": {"data": TEAM}}}
    document["identity"] = {"key_secret": KEY_SECRET}
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return program


def explained(program: Program, *args: str) -> dict[str, object]:
    done = program.run("explain", *args, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_explain_names_the_rule_of_a_key_of_a_team_and_of_the_local_user(house: Program) -> None:
    as_key = explained(house, "one__add", "--as", "acme/data/ci")
    assert (as_key["caller"], as_key["is_permitted"], as_key["is_hidden"]) == ("key:acme/data/ci", False, True)
    assert as_key["rule"] == "key:acme/data/ci/deny/0"
    as_team = explained(house, "one__add", "--as", "acme/data")
    assert (as_team["is_permitted"], as_team["rule"]) == (True, "team:acme/data/allow/0")
    assert explained(house, "one__add")["is_permitted"] is True
    unknown = explained(house, "one__nothing", "--as", "acme/data")
    assert (unknown["rule"], unknown["is_hidden"]) == ("unknown", True)
    assert explained(house, "one__add", "--as", "acme/data", "--view", "two")["rule"] == "view:two"


def test_explain_judges_the_arguments_and_shows_every_rung(house: Program) -> None:
    refused = house.run("explain", "one__echo", "text=secret", "--as", "acme/data/ci", "--all")
    assert refused.code == 0, refused.err
    first, *rungs = refused.out.splitlines()
    assert first.startswith("one__echo is denied by team:acme/data/deny/0: ") and "'text'" in first
    assert rungs[0].startswith("  passed  entry: ") and rungs[-1].startswith("  denied  team:acme/data/deny/0: ")
    done = house.run("explain", "one__echo", "text=fine", "--as", "acme/data/ci")
    assert done.out == "one__echo is permitted by team:acme/data/allow/0\n"


def test_the_catalog_of_a_key_is_its_view_and_nothing_else(house: Program) -> None:
    done = house.run("catalog", "--as", "acme/data/ci", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert [tool["name"] for tool in document["tools"]] == ["one__echo"]
    assert list(document["servers"]) == ["one"]
    assert document["prompts"] == document["resources"] == document["resourceTemplates"] == []
    assert document["instructions"] and "two__" not in done.out and "one__add" not in done.out
    assert len(json.loads(house.run("catalog", "--json").out)["tools"]) > 2


def test_a_key_of_the_store_is_found_by_its_id_and_by_its_place(house: Program) -> None:
    made = json.loads(house.run("key", "create", "--team", "acme/data", "--name", "web", "--json").out)
    for reference in (made["id"], "acme/data/web"):
        assert explained(house, "one__add", "--as", reference)["caller"] == f"key:{made['id']}"
    assert house.run("key", "revoke", made["id"], "--yes").code == 0
    assert str(explained(house, "one__add", "--as", made["id"])["rule"]).endswith("/revoked")


def test_the_text_of_a_key_is_taken_from_the_environment_or_stdin_and_refused_on_the_command_line(
    house: Program,
) -> None:
    text = MADE.text.reveal()
    args = ("explain", "one__add", "--as", "-", "--json")
    for done in (house.run(*args, env={"MCP_BROKER_KEY": text}), house.run(*args, stdin=text + "\n")):
        assert json.loads(done.out)["caller"] == "key:acme/data/ci" and text not in done.out + done.err
    bad = house.run(*args, stdin=text[:-1] + ("A" if text[-1] != "A" else "B"))
    assert (bad.code, bad.out) == (1, "") and bad.err == "that is no key, or one that is not good any more\n"
    shown = house.run("explain", "one__add", "--as", text)
    assert shown.code == 2 and text not in shown.err
    nobody = house.run("catalog", "--as", "acme/nobody")
    assert nobody.code == 1 and "there is no key and no place 'acme/nobody'" in nobody.err
