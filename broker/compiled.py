"""From a configuration to the values that it means: names, rules, texts, guardrails, places. Nothing here lives."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from broker.clock import Clock
from broker.config import (
    Config,
    GuardrailSettings,
    GuardrailText,
    InstructionsText,
    Loaded,
    Problem,
    Server,
    reveal,
)
from broker.core.directory import Directory
from broker.core.match import Pattern, Rules
from broker.core.names import Mount, Naming
from broker.core.policy import Policy
from broker.core.request import Kind
from broker.guardrails.chain import Guardrail, Phase, Record, Selector
from broker.guardrails.guards import Guards, NoGuards
from broker.guardrails.source import Flaw, Source
from broker.relay.listing import Texts

NOBODY: Final = Directory()
"""What a database says that is empty, or that is not there."""
_LINK: Final = ("command", "args", "env", "cwd", "url", "transport", "headers", "protocol", "isolation", "roots")
"""The settings of a server that its links are made by, and cannot be changed on them."""


def naming_of(config: Config) -> Naming:
    """All configured servers take part, also disabled ones: enabling one must not rename another."""
    mounts = (Mount(key, key if server.prefix is None else server.prefix) for key, server in config.servers.items())
    return Naming.of(mounts, config.naming.max_length)


def policy_of(config: Config, directory: Directory = NOBODY) -> Policy:
    """The file's rules for each server, and its views (each server, and each group), below a directory."""
    rules = {
        key: {
            Kind.TOOL: Rules.from_texts(server.tools.allow, server.tools.deny),
            Kind.PROMPT: Rules.from_texts(server.prompts.allow, server.prompts.deny),
            Kind.RESOURCE: Rules.from_texts(server.resources.allow, server.resources.deny),
        }
        for key, server in config.servers.items()
    }
    views = {key: frozenset({key}) for key in config.servers}
    groups = {name: frozenset(members) for name, members in config.groups.items()}
    return Policy(rules, {**views, **groups}, directory)


def guards_of(loaded: Loaded, clock: Clock, record: Record) -> Guards | NoGuards:
    """The guardrails of a configuration, in its order; their processes start when the generation runs."""
    found = [_guardrail(name, settings, loaded.texts[name]) for name, settings in loaded.config.guardrails.items()]
    return Guards(found, clock, record) if found else NoGuards()


def problems_of(loaded: Loaded, flaws: Mapping[str, Sequence[Flaw]]) -> list[Problem]:
    """What is wrong with the texts of guardrails, as problems of the configuration: each in its own file and line."""
    return [
        Problem(str(loaded.texts[name].path), flaw.line, f"guardrails.{name}", flaw.message)
        for name, found in flaws.items()
        for flaw in found
    ]


def _guardrail(name: str, settings: GuardrailSettings, text: GuardrailText) -> Guardrail:
    source = Source(
        name, text.text, text.sha256, settings.timeout, settings.memory * 1024 * 1024, settings.max_size * 1024
    )
    selector = Selector(
        None if settings.servers is None else frozenset(settings.servers),
        None if settings.kinds is None else frozenset(settings.kinds),
        *(_patterns(texts) for texts in (settings.names, settings.organizations, settings.teams, settings.keys)),
    )
    return Guardrail(source, frozenset(map(Phase, settings.phases)), selector)


def _patterns(texts: tuple[str, ...] | None) -> tuple[Pattern, ...] | None:
    return None if texts is None else tuple(map(Pattern, texts))


def texts_of(config: Config) -> Texts:
    """What the configuration says about instructions."""
    preamble = config.broker.instructions
    return Texts(
        None if preamble is None else reveal(preamble),
        config.broker.instructions_max,
        {key: _replacement(server) for key, server in config.servers.items()},
        {key: server.instructions_max for key, server in config.servers.items()},
    )


def state_directory(config: Config) -> Path:
    """`broker.state_dir`, or the usual place: `$XDG_STATE_HOME/mcp-broker`, `~/.local/state/mcp-broker`."""
    if config.broker.state_dir is not None:
        return _expanded(config.broker.state_dir)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else _expanded("~/.local/state")) / "mcp-broker"


def _expanded(path: str) -> Path:
    """With the home in place of `~`. Who has no name and no `HOME`, as in some containers, is at home in `/`."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path("/", path.removeprefix("~").lstrip("/"))


def pins_directory(config: Config) -> Path:
    """Where it is kept what servers said of themselves."""
    return state_directory(config) / "pins"


def catalog_directory(config: Config) -> Path:
    """Where the snapshots of listings are."""
    return state_directory(config) / "catalog"


def _replacement(server: Server) -> str | None:
    if isinstance(server.instructions, InstructionsText):
        return server.instructions.text
    return None if server.instructions == "upstream" else ""


def enabled(config: Config) -> dict[str, Server]:
    """The servers that are to run."""
    return {key: server for key, server in config.servers.items() if server.enabled}


def has_same_links(before: Server, after: Server) -> bool:
    """Whether links that were made by one definition are as good as those that the other would make."""
    return all(getattr(before, name, None) == getattr(after, name, None) for name in _LINK)
