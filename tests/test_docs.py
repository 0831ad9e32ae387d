"""What can be set, what can be answered and what can be linked to is documented; a test finds it there."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from broker import errors
from broker.config import (
    AuditSettings,
    BrokerSettings,
    BudgetSettings,
    ConditionSettings,
    Config,
    CostSettings,
    GuardrailSettings,
    HttpServer,
    IdentitySettings,
    JwtIssuer,
    KeySettings,
    LevelLimitSettings,
    MetricsSettings,
    NameRules,
    NamingSettings,
    OrganizationSettings,
    RuleSettings,
    ServerLimitSettings,
    ServerSettings,
    StdioServer,
    StoreSettings,
    UsageSettings,
    load,
)

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
ACCESS = (ROOT / "docs" / "access.md").read_text(encoding="utf-8")
ERRORS = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

SECTIONS: list[tuple[str, type[BaseModel]]] = [
    ("broker.", BrokerSettings),
    ("naming.", NamingSettings),
    ("server.", ServerSettings),
    ("store.", StoreSettings),
    ("audit.", AuditSettings),
    ("metrics.", MetricsSettings),
    ("identity.", IdentitySettings),
    ("identity.jwt[].", JwtIssuer),
    ("", StdioServer),
    ("", HttpServer),
    ("", NameRules),
    ("organizations.*.", OrganizationSettings),
    ("", KeySettings),
    ("", RuleSettings),
    ("", ConditionSettings),
    ("limits.", LevelLimitSettings),
    ("limits.budget.", BudgetSettings),
    ("cost.", CostSettings),
    ("usage.", UsageSettings),
    ("limits.", ServerLimitSettings),
    ("", GuardrailSettings),
]
SETTINGS = sorted(
    {f"{prefix}{field.alias or name}" for prefix, model in SECTIONS for name, field in model.model_fields.items()}
)
POSITIVE = {errors.REFUSED, errors.LIMITED, errors.UNRECORDED}
CODES = sorted({one for one in vars(errors).values() if type(one) is int and (one < -32000 or one in POSITIVE)})


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_has_a_row_in_the_configuration_page(setting: str) -> None:
    assert re.search(rf"^\| `{re.escape(setting)}` \|", CONFIGURATION, re.MULTILINE), setting


def test_every_section_of_the_file_has_a_heading() -> None:
    for section in Config.model_fields:
        assert re.search(rf"^## {section}$", CONFIGURATION, re.MULTILINE), section


def test_the_example_of_the_access_page_is_a_configuration_without_a_warning(tmp_path: Path) -> None:
    found = re.search(r"```yaml\n(organizations:.*?)```", ACCESS, re.DOTALL)
    assert found is not None
    path = tmp_path / "servers.yaml"
    path.write_text("servers:\n  sql: {command: sql}\n  docs: {command: docs}\n" + found[1], encoding="utf-8")
    assert load(path, {}, now=0).warnings == ()


@pytest.mark.parametrize("code", CODES)
def test_every_error_code_has_a_row_in_the_errors_page(code: int) -> None:
    assert re.search(rf"^\| `{code}` \|", ERRORS, re.MULTILINE), code


def test_every_http_status_of_a_code_is_the_documented_one() -> None:
    for code, status in errors.HTTP_STATUS.items():
        assert re.search(rf"^\| `{code}` \| {status} \|", ERRORS, re.MULTILINE), code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_readme_names_only_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert named and named <= targets
