"""A file -> a checked `Config`, or every problem it has.

In steps: bytes, text, document (YAML or JSON), our own shape (`adapt`), references expanded, model, cross checks. A
step that can go on after a finding does, so that one run reports everything.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from broker.clock import SystemClock
from broker.config import translate
from broker.config.adapt import adapt
from broker.config.advice import advise
from broker.config.checks import ServerFacts, conflicts, misdirected
from broker.config.costs import cost_conflicts
from broker.config.document import MAX_BYTES, Data, Document, Finding, UnreadableError
from broker.config.grants import grant_advice, grant_conflicts, identity_advice, scope_conflicts
from broker.config.guardrails import GuardrailText, guardrail_advice, guardrail_files, read_guardrails, selectors
from broker.config.model import Config
from broker.config.problem import ConfigError, Problem
from broker.config.read_json import read_json
from broker.config.read_yaml import read_yaml
from broker.config.resolve import resolve
from broker.config.secret import Sources
from broker.config.strict import compile_once

_SECTIONS = (
    *("broker", "naming", "server", "store", "servers", "organizations", "groups", "identity", "guardrails", "usage"),
)
_IDENTITY: dict[str, Data] = {
    "command": None,
    "args": [],
    "env": {},
    "cwd": None,
    "url": None,
    "transport": "http",
    "headers": {},
    "protocol": "auto",
}
"""What makes a server another server, with the values that count as not written."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """fingerprints: by server key, sha256 (hex) of what makes a server that server, before references are expanded:
    no secret goes in, and a rotated one changes nothing (compare the models for that). warnings: in file order. texts:
    of the guardrails, by name, as they were read with the file."""

    config: Config
    fingerprints: Mapping[str, str]
    path: Path
    warnings: tuple[Problem, ...]
    texts: Mapping[str, GuardrailText] = field(default_factory=dict[str, GuardrailText])
    files: frozenset[Path] = frozenset()
    """All that was read: the file, and what it names."""


def load(path: Path, environ: Mapping[str, str], now: float | None = None) -> Loaded:
    """environ: where `${env:X}` looks. now: seconds since 1970, for what has expired; None: now.

    Raises: ConfigError, with every problem of the file at once, in its order; nothing else, whatever the file holds.
    """
    failure: Finding
    try:
        return _checked(_read(path), path, environ, SystemClock().wall() if now is None else now)
    except UnreadableError as error:
        failure = error.finding
    raise ConfigError([Problem(str(path), failure.line, "", failure.message, failure.remedy)], {path})


def _checked(parsed: Document, path: Path, environ: Mapping[str, str], now: float) -> Loaded:
    """From here on a broken piece does not hide the others."""
    adapted = adapt(parsed, path, environ)
    document, unresolved = adapted.document, _sections(adapted.document.data)
    sources = Sources(environ, adapted.forms)
    data, missing = resolve(unresolved, sources)
    files = {path, *map(Path, sources.files), *guardrail_files(unresolved.get("guardrails"), path.parent).values()}
    texts, unread = read_guardrails(unresolved.get("guardrails"), path.parent)
    crossed = [*document.findings, *missing, *_conflicts(unresolved), *unread]
    config, invalid = _validated(data, has_conflicts=bool(crossed))
    # A value whose reference failed is judged by that alone.
    unresolvable = {finding.path for finding in missing}
    found = crossed + [finding for finding in invalid if finding.path not in unresolvable]
    if found or config is None:
        raise ConfigError(document.problems(str(path), found), files)
    advice = [*advise(config, unresolved), *grant_advice(unresolved.get("organizations"), now)]
    advice += identity_advice(unresolved.get("identity"), unresolved.get("organizations"))
    advice += guardrail_advice(unresolved.get("guardrails"), unresolved.get("organizations"))
    warnings = document.problems(str(path), [*document.warnings, *advice])
    return Loaded(config, _fingerprints(unresolved), path, tuple(warnings), texts, frozenset(files))


def read_data(text: str) -> Data:
    """One value, in JSON or YAML, as it would be read within a file: of a command line. Raises: UnreadableError."""
    return _json_or_yaml(text).data if text.lstrip().startswith(("{", "[")) else read_yaml(text).data


def _read(path: Path) -> Document:
    text = _text(_bytes(path))
    if path.suffix.lower() in {".json", ".jsonc"}:
        return read_json(text)
    if not text.lstrip().startswith(("{", "//", "/*")):
        return read_yaml(text)
    return _json_or_yaml(text)


def _json_or_yaml(text: str) -> Document:
    """JSON under another name, or YAML in braces: what can be read decides; if neither, JSON's complaint is nearer."""
    try:
        return read_json(text)
    except UnreadableError as error:
        failure = error
    try:
        return read_yaml(text)
    except UnreadableError:
        raise failure from None


def _bytes(path: Path) -> bytes:
    reason = "not a valid path"
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise UnreadableError("this is a directory", "Name the file in it.") from None
    except FileNotFoundError:
        raise UnreadableError("there is no such file", "Check the path.") from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            reason = os.strerror(error.errno)
        raise UnreadableError(f"cannot be read ({reason})") from None
    if len(raw) > MAX_BYTES:
        raise UnreadableError(f"larger than {MAX_BYTES} bytes", "Check that this is the right file.")
    return raw


def _text(raw: bytes) -> str:
    line = 1
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
    raise UnreadableError("not UTF-8 text", "Save the file in UTF-8.", line)


def _sections(data: Data) -> dict[str, Data]:
    """A section with nothing below it (all commented out, say) counts as left out."""
    if data is None:
        raise UnreadableError("the file is empty", "Start with a line servers:.")
    if not isinstance(data, dict):
        raise UnreadableError("must be a mapping with a key servers", "Start with a line servers:.", 1)
    return {key: value for key, value in data.items() if not (value is None and key in _SECTIONS)}


def _validated(data: dict[str, Data], *, has_conflicts: bool) -> tuple[Config | None, list[Finding]]:
    compile_once(Config)
    try:
        return Config.model_validate(data), []
    except ValidationError as error:
        found = translate.findings(error, data)
    # The model's own cross check is at the top, and says again what `conflicts` said with a line.
    return None, [finding for finding in found if finding.path or not has_conflicts]


def _conflicts(data: dict[str, Data]) -> list[Finding]:
    servers, groups = data.get("servers"), data.get("groups")
    facts = {key: _facts(entry) for key, entry in servers.items()} if isinstance(servers, dict) else {}
    members = {
        name: value for name, value in (groups.items() if isinstance(groups, dict) else ()) if isinstance(value, list)
    }
    return [
        *conflicts(facts, members),
        *misdirected(selectors(data.get("guardrails")), facts),
        *grant_conflicts(data.get("organizations"), tuple(facts)),
        *scope_conflicts(data.get("identity"), tuple(facts)),
        *cost_conflicts(servers, data.get("organizations")),
    ]


def _facts(entry: Data) -> ServerFacts:
    if not isinstance(entry, dict):
        return ServerFacts()
    headers = entry.get("headers")
    return ServerFacts(
        prefix=_if_text(entry.get("prefix")),
        protocol=_if_text(entry.get("protocol")),
        transport=_if_text(entry.get("transport")),
        headers=tuple(headers) if isinstance(headers, dict) else (),
    )


def _if_text(value: Data) -> str | None:
    return value if isinstance(value, str) else None


def _fingerprints(unresolved: dict[str, Data]) -> Mapping[str, str]:
    servers = unresolved.get("servers")
    entries = servers.items() if isinstance(servers, dict) else ()
    return MappingProxyType({key: _fingerprint(entry) for key, entry in entries if isinstance(entry, dict)})


def _fingerprint(entry: dict[str, Data]) -> str:
    identity = {
        name: entry[name] for name, default in _IDENTITY.items() if name in entry and entry[name] not in (default, None)
    }
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()
