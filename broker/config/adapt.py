"""Other people's files -> our shape: `mcpServers` (Claude, Cursor, `.mcp.json`) and VS Code's `servers`.

Recognised by content. What becomes of the file is data in our own terms, references included, so that everything
after this step knows one format; `origins` remember where each part stood, so that problems speak the file's words.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath

from broker.config.checks import did_you_mean
from broker.config.document import Data, Document, Finding, Path, shown
from broker.config.problem import Fault
from broker.config.secret import KNOWN_FORMS, substitute

_OURS = frozenset({"broker", "naming", "server", "store", "organizations", "identity", "groups"})
_COPIED = ("command", "args", "env", "cwd", "headers")
_RULES = frozenset({"tools", "prompts", "resources"})
_READ = frozenset({*_COPIED, "url", "serverUrl", "type", "transport", "disabled", "enabled"})
_TRANSPORTS: dict[str, str] = {
    "stdio": "",
    "http": "http",
    "streamable-http": "http",
    "streamableHttp": "http",
    "sse": "sse",
}
_HOST_DIRECTORIES = frozenset({".vscode", ".cursor"})
_MAX_KEY = 32
_SHOWN_IGNORED = 5
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?::-.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Adapted:
    """forms: the references that may be written in this file, for error messages."""

    document: Document
    forms: tuple[str, ...] = KNOWN_FORMS


def adapt(document: Document, path: FilePath, environ: Mapping[str, str]) -> Adapted:
    """path: of the file; its directory is `${workspaceFolder}`. A file in our own shape passes as it is."""
    data = document.data
    if not isinstance(data, dict):
        return Adapted(document)
    if "mcpServers" in data:
        return _Adapter(document, data, "mcpServers", _places(path, environ)).adapt()
    if _is_vs_code(document, data, path):
        return _Adapter(document, data, "servers", _places(path, environ)).adapt()
    return Adapted(document)


def _is_vs_code(document: Document, data: dict[str, Data], path: FilePath) -> bool:
    """Only JSON, and only with a mark of VS Code's own: our `servers:` must never be read with its laxer rules."""
    servers = data.get("servers")
    if not document.is_json or not isinstance(servers, dict) or _OURS & data.keys():
        return False
    has_type = any(isinstance(entry, dict) and "type" in entry for entry in servers.values())
    return has_type or "inputs" in data or path.absolute().parent.name == ".vscode"


def _places(path: FilePath, environ: Mapping[str, str]) -> dict[str, str]:
    directory = path.absolute().parent
    workspace = directory.parent if directory.name in _HOST_DIRECTORIES else directory
    home = environ.get("HOME") or os.path.expanduser("~")
    return {"workspaceFolder": str(workspace), "userHome": home}


def input_variable(input_id: str) -> str:
    """The environment variable that stands for VS Code's `${input:id}`: `api-key` -> `INPUT_API_KEY`."""
    return "INPUT_" + re.sub(r"[^A-Z0-9]", "_", input_id.upper())


@dataclass(slots=True)
class _Adapter:
    document: Document
    data: dict[str, Data]
    section: str
    places: Mapping[str, str]
    findings: list[Finding] = field(default_factory=list[Finding])
    warnings: list[Finding] = field(default_factory=list[Finding])
    origins: dict[Path, Path] = field(default_factory=dict[Path, Path])

    def adapt(self) -> Adapted:
        self._check_top()
        servers = self._servers(self.data[self.section])
        self.origins["servers",] = (self.section,)
        document = replace(
            self.document,
            data={"servers": servers},
            findings=_in_file(*self.document.findings, *self.findings),
            warnings=_in_file(*self.document.warnings, *self.warnings),
            origins=self.origins,
        )
        bare = ("${NAME}",) if self.section == "mcpServers" else ("${input:id}",)
        return Adapted(document, (*bare, *KNOWN_FORMS, *(f"${{{name}}}" for name in self.places)))

    def _check_top(self) -> None:
        others = [key for key in self.data if key not in {self.section, "inputs", "$schema"}]
        for key in (key for key in others if key in _OURS or key == "servers"):
            message = f"{key} belongs to the broker's own format, and this file has {self.section}"
            self.findings.append(Finding((key,), message, "Move the servers below servers:."))
        if ignored := [shown(key) for key in others if key not in _OURS and key != "servers"]:
            more = f" and {len(ignored) - _SHOWN_IGNORED} more" if len(ignored) > _SHOWN_IGNORED else ""
            names = ", ".join(ignored[:_SHOWN_IGNORED])
            self.warnings.append(Finding((), f"ignored, since the broker does not know them: {names}{more}"))
        self._check_inputs()

    def _check_inputs(self) -> None:
        """Two inputs read from one variable would send a secret to the wrong server."""
        inputs = self.data.get("inputs")
        owners: dict[str, str] = {}
        for index, entry in enumerate(inputs if isinstance(inputs, list) else ()):
            name = entry.get("id") if isinstance(entry, dict) else None
            if not isinstance(name, str):
                continue
            first = owners.setdefault(input_variable(name), name)
            if first != name:
                message = (
                    f'the inputs "{shown(first)}" and "{shown(name)}" would both be read from {input_variable(name)}'
                )
                self.findings.append(Finding(("inputs", index), message, "Rename one of them."))

    def _servers(self, entries: Data) -> Data:
        if not isinstance(entries, dict):
            return entries
        result: dict[str, Data] = {}
        owners: dict[str, str] = {}
        for name, entry in entries.items():
            origin: Path = (self.section, name)
            key = _server_key(name)
            if not key:
                self.findings.append(Finding(origin, "a server name without a letter or digit", "Rename it."))
            elif key in owners:
                message = f'the servers "{shown(owners[key])}" and "{shown(name)}" would both be named "{key}"'
                self.findings.append(Finding(origin, message, "Rename one of them."))
            else:
                owners[key] = name
                self.origins["servers", key] = origin
                result[key] = self._entry(entry, key, origin)
        return result

    def _entry(self, entry: Data, key: str, origin: Path) -> Data:
        if not isinstance(entry, dict):
            return entry
        result: dict[str, Data] = {
            name: self._translated(entry[name], (*origin, name)) for name in _COPIED if name in entry
        }
        self._url(entry, result, key, origin)
        self._transport(entry, result, key, origin)
        self._enabled(entry, result, origin)
        for name in (name for name in entry if name not in _READ):
            self._unknown(name, entry[name], (*origin, name))
        return result

    def _url(self, entry: dict[str, Data], result: dict[str, Data], key: str, origin: Path) -> None:
        for name in ("url", "serverUrl"):
            if name in entry and "url" in result:
                self.findings.append(Finding((*origin, name), "url and serverUrl together", "Remove one of them."))
            elif name in entry:
                result["url"] = self._translated(entry[name], (*origin, name))
                self.origins["servers", key, "url"] = (*origin, name)

    def _transport(self, entry: dict[str, Data], result: dict[str, Data], key: str, origin: Path) -> None:
        name = "type" if "type" in entry else "transport"
        if name not in entry:
            return
        kind = entry[name]
        transport = _TRANSPORTS.get(kind) if isinstance(kind, str) else None
        if transport is None:
            known = ", ".join(_TRANSPORTS)
            self.findings.append(Finding((*origin, name), f"must be one of {known}"))
        elif transport:
            result["transport"] = transport
            self.origins["servers", key, "transport"] = (*origin, name)
        elif "url" in result:
            self.findings.append(Finding((*origin, name), f"{name} stdio with a url", f"Remove {name}, or the url."))

    def _enabled(self, entry: dict[str, Data], result: dict[str, Data], origin: Path) -> None:
        """Either of two spellings turns a server off; a host would have started what we must not."""
        for name, off in (("disabled", True), ("enabled", False)):
            value = entry.get(name)
            if value is not None and not isinstance(value, bool):
                self.findings.append(Finding((*origin, name), "must be true or false"))
            elif value is off:
                result["enabled"] = False

    def _unknown(self, name: str, value: Data, path: Path) -> None:
        if name in _RULES and isinstance(value, dict):
            # Ignoring it would serve what somebody meant to deny.
            message = "rules belong to the broker's own format, and would not apply here"
            self.findings.append(Finding(path, message, "Move the servers below servers: in a YAML file."))
        else:
            self.warnings.append(Finding(path, "ignored, since the broker does not know it", did_you_mean(name, _READ)))

    def _translated(self, value: Data, path: Path) -> Data:
        """References in our own terms: `${X}` -> `${env:X}`."""
        if isinstance(value, dict):
            return {name: self._translated(item, (*path, name)) for name, item in value.items()}
        if isinstance(value, list):
            return [self._translated(item, (*path, index)) for index, item in enumerate(value)]
        return _our_references(value, self.section, self.places) if isinstance(value, str) else value


def _in_file(*findings: Finding) -> tuple[Finding, ...]:
    return tuple(replace(finding, in_file=True) for finding in findings)


def _our_references(text: str, section: str, places: Mapping[str, str]) -> str:
    def translate(body: str) -> str:
        if body in places:
            return places[body].replace("${", "$${")
        if section == "mcpServers" and _BARE.fullmatch(body):
            return f"${{env:{body}}}"
        if section == "servers" and body.startswith("input:"):
            return f"${{env:{input_variable(body.removeprefix('input:'))}}}"
        return f"${{{body}}}"

    faults: list[Fault] = []
    result = substitute(text, translate, faults, escape="$${")
    # What is broken stays as it is written, and is found when it is expanded.
    return text if faults else result


def _server_key(name: str) -> str:
    """Fits `[a-z][a-z0-9-]{0,31}`, or is empty: lower case, anything else a hyphen, a letter in front."""
    key = re.sub(r"[^a-z0-9-]", "-", name.lower()).strip("-")
    if key and not key[0].isalpha():
        key = "s-" + key
    return key[:_MAX_KEY]
