"""What a broker that is measured has on."""

from pathlib import Path

import orjson
import pytest

from bench.parts import VARIANTS
from bench.settings import RULES, TEAMS, setting
from broker.config import load

SERVER = {"command": "echo"}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_configuration_that_the_broker_takes(name: str, tmp_path: Path) -> None:
    made = setting({"web": SERVER}, VARIANTS[name], tmp_path, keys=TEAMS)
    file = tmp_path / "servers.yaml"
    file.write_bytes(orjson.dumps(made.sections))
    assert list(load(file, {}).config.servers) == ["web"]


def test_there_are_as_many_rules_and_keys_as_are_said(tmp_path: Path) -> None:
    made = setting({"web": SERVER}, VARIANTS["everything"], tmp_path, keys=2 * TEAMS)
    organization = made.sections["organizations"]["acme"]
    levels = [organization, *organization["teams"].values()]
    assert sum(len(level["allow"]) + len(level["deny"]) for level in levels) == RULES
    assert sum(len(team["keys"]) for team in organization["teams"].values()) == len(set(made.keys)) == 2 * TEAMS
