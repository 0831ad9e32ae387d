"""The section `guardrails:`, and the texts that it names: read with it, so that a configuration means one set of texts.

They are only read here. Whether a text is a guardrail is found out in a process of its own (`broker/guardrails/`).
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from broker.config import rules
from broker.config.checks import CALLERS, SelectorFacts, did_you_mean
from broker.config.document import Data, Finding, shown
from broker.config.strict import Lists, Strictest

MAX_TEXT: int = 64 * 1024
"""Bytes, as `broker/guardrails/source.py` has it: a longer one need not be read to be refused."""


_Pattern = Annotated[str, AfterValidator(rules.pattern)]
_Phase = Literal["request", "result", "definition", "question"]
_Kind = Literal["tools", "prompts", "resources", "templates", "instructions"]


class GuardrailSettings(Strictest):
    """An operator-written check. What is left out of its selectors is not asked for."""

    file: Annotated[str, AfterValidator(rules.file_path)] = Field(
        description="Its text, in RestrictedPython with a function check(ctx). Relative to this file's directory."
    )
    phases: Annotated[tuple[_Phase, ...], Lists, AfterValidator(rules.not_empty)] = Field(
        description="What it judges: requests, results, definitions when discovered, questions to callers."
    )
    servers: Annotated[tuple[str, ...], Lists] | None = Field(
        default=None, description="Of which servers, by their keys. Left out: all."
    )
    kinds: Annotated[tuple[_Kind, ...], Lists] | None = Field(
        default=None, description="tools, prompts, resources, templates, and (definitions only) instructions."
    )
    names: Annotated[tuple[_Pattern, ...], Lists] | None = Field(
        default=None, description="Patterns over full names: <key>__<own name>, <key>+<own URI>."
    )
    organizations: Annotated[tuple[_Pattern, ...], Lists] | None = Field(
        default=None, description="Patterns over the caller's organization."
    )
    teams: Annotated[tuple[_Pattern, ...], Lists] | None = Field(
        default=None, description="Patterns over the caller's team, as organization/team."
    )
    keys: Annotated[tuple[_Pattern, ...], Lists] | None = Field(
        default=None, description="Patterns over the caller's key: its id, or organization/team/name."
    )
    timeout: float = Field(default=0.25, gt=0, le=5, description="Seconds it may take; past that it denies.")
    memory: int = Field(
        default=64, ge=16, le=1024, description="MiB it may use beyond what its process has; past that it denies."
    )
    max_size: int = Field(
        default=1024, ge=1, le=16384, description="KiB of what it judges, and of what it returns; past that it denies."
    )


@dataclass(frozen=True, slots=True)
class GuardrailText:
    """path: the file. text: its bytes. sha256: of them, in hex, which names the text in logs and records."""

    path: Path
    text: bytes
    sha256: str

    @classmethod
    def of(cls, path: Path, text: bytes) -> "GuardrailText":
        """The text of a file that was read."""
        return cls(path, text, hashlib.sha256(text).hexdigest())


def read_guardrails(section: Data, directory: Path) -> tuple[Mapping[str, GuardrailText], list[Finding]]:
    """The texts that a section names, by guardrail; and a finding for each that cannot be had.

    What is no mapping, or names no file, is somebody else's finding.
    """
    texts: dict[str, GuardrailText] = {}
    found: list[Finding] = []
    for name, path in guardrail_files(section, directory).items():
        try:
            texts[name] = read_text(path)
        except OSError as error:
            why = os.strerror(error.errno).lower() if error.errno else "not a valid path"
            remedy = "The path is relative to the directory of this file."
            found.append(Finding(("guardrails", name, "file"), f"cannot be read ({why})", remedy))
        except ValueError as error:
            found.append(Finding(("guardrails", name, "file"), str(error)))
    return MappingProxyType(texts), found


def guardrail_files(section: Data, directory: Path) -> Mapping[str, Path]:
    """The files that a section names, by guardrail, whether they are there or not."""
    files: dict[str, Path] = {}
    for name, entry in section.items() if isinstance(section, dict) else ():
        file = entry.get("file") if isinstance(entry, dict) else None
        if isinstance(file, str) and file and "\0" not in file and "${" not in file:
            files[name] = directory / file
    return files


def read_text(path: Path) -> GuardrailText:
    """Raises: OSError; ValueError, if it is too long."""
    with path.open("rb") as file:
        text = file.read(MAX_TEXT + 1)
    if len(text) > MAX_TEXT:
        raise ValueError(f"larger than {MAX_TEXT} bytes")
    return GuardrailText.of(path, text)


def selector_facts(guardrails: Mapping[str, GuardrailSettings]) -> dict[str, SelectorFacts]:
    """What the cross checks read."""
    return {
        name: SelectorFacts(
            one.phases,
            one.servers or (),
            one.kinds or (),
            tuple(word for word in CALLERS if getattr(one, word) is not None),
        )
        for name, one in guardrails.items()
    }


def guardrail_advice(section: Data, organizations: Data) -> list[Finding]:
    """Organizations that a selector names and the file does not know: they may be made at run time, or be misspelt."""
    known = tuple(organizations) if isinstance(organizations, dict) else ()
    found: list[Finding] = []
    for name, entry in section.items() if isinstance(section, dict) else ():
        for word in ("organizations", "teams") if isinstance(entry, dict) else ():
            for index, pattern in enumerate(_listed(entry, word)):
                organization = str(pattern).partition("/")[0]
                if "*" not in organization and organization not in known:
                    message = f'there is no organization "{shown(organization)}" in this file'
                    remedy = did_you_mean(organization, known) or "One that is made at run time may have that name."
                    found.append(Finding(("guardrails", name, word, index), message, remedy))
    return found


def selectors(section: Data) -> dict[str, SelectorFacts]:
    """What the cross checks read, of a section that may hold anything."""
    entries = section.items() if isinstance(section, dict) else ()
    return {name: _facts(entry) for name, entry in entries if isinstance(entry, dict)}


def _facts(entry: dict[str, Data]) -> SelectorFacts:
    callers = [word for word in CALLERS if entry.get(word) is not None]
    return SelectorFacts(_listed(entry, "phases"), _listed(entry, "servers"), _listed(entry, "kinds"), callers)


def _listed(entry: Data, key: str) -> list[Data]:
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, list) else []
