"""What concerns more than one value: owners of names, members of groups, pairs of settings that exclude each other.

Pure, and over `ServerFacts` in place of models, so that it also runs on a file whose models cannot be built: its
findings stand beside those of single values.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from broker.config.document import Finding, Path, shown

MODERN: str = "2026-07-28"
"""The protocol version that the old SSE transport cannot carry, since that transport is a session."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the checks read of one server. prefix: None if it has none of its own."""

    prefix: str | None = None
    protocol: str | None = None
    transport: str | None = None
    headers: tuple[str, ...] = ()


def conflicts(servers: Mapping[str, ServerFacts], groups: Mapping[str, Sequence[object]]) -> list[Finding]:
    """groups: the members by group name; what is no text among them is somebody else's finding."""
    return [
        *_two_owners(servers, groups),
        *_second_without_prefix(servers),
        *(finding for name, members in groups.items() for finding in _members(name, members, servers)),
        *(finding for key, facts in servers.items() for finding in _pairs(key, facts)),
    ]


def _two_owners(servers: Mapping[str, ServerFacts], groups: Iterable[str]) -> list[Finding]:
    found: list[Finding] = []
    owners = {key: f'the key of server "{shown(key)}"' for key in servers}

    def claim(name: str, owner: str, path: Path, remedy: str) -> None:
        if name in owners:
            message = f'two owners of the name "{shown(name)}": {owner} and {owners[name]}'
            found.append(Finding(path, message, remedy))
        else:
            owners[name] = owner

    for key, facts in servers.items():
        if facts.prefix and facts.prefix != key:
            owner = f'the prefix of server "{shown(key)}"'
            claim(facts.prefix, owner, ("servers", key, "prefix"), "Choose another prefix, or leave it out.")
    for name in groups:
        claim(name, f'the group "{shown(name)}"', ("groups", name), "Rename the group.")
    return found


def _second_without_prefix(servers: Mapping[str, ServerFacts]) -> list[Finding]:
    bare = [key for key, facts in servers.items() if facts.prefix == ""]
    return [
        Finding(
            ("servers", key, "prefix"),
            f'two servers without a prefix: "{shown(key)}" and "{shown(bare[0])}"',
            "Give one of them a prefix, or leave prefix out.",
        )
        for key in bare[1:]
    ]


def _members(group: str, members: Sequence[object], servers: Iterable[str]) -> list[Finding]:
    if not members:
        return [Finding(("groups", group), "a group without members", "Name a server, or remove the group.")]
    found: list[Finding] = []
    seen: set[object] = set()
    for index, member in enumerate(members):
        path: Path = ("groups", group, index)
        if not isinstance(member, str):
            continue
        if member in seen:
            found.append(Finding(path, f'"{shown(member)}" is already in this group', "Remove one of them."))
        elif member not in servers:
            found.append(Finding(path, f'there is no server "{shown(member)}"', did_you_mean(member, servers)))
        seen.add(member)
    return found


def _pairs(key: str, facts: ServerFacts) -> list[Finding]:
    found: list[Finding] = []
    if facts.transport == "sse" and facts.protocol == MODERN:
        found.append(
            Finding(
                ("servers", key, "protocol"),
                f"the sse transport cannot carry protocol {MODERN}",
                "Use transport: http, or an earlier protocol.",
            )
        )
    seen: set[str] = set()
    for name in facts.headers:
        if name.lower() in seen:
            message = "this header is given twice (case does not matter)"
            found.append(Finding(("servers", key, "headers", name), message, "Remove one of them."))
        seen.add(name.lower())
    return found


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question with the nearest known word, "" if none is near."""
    near = difflib.get_close_matches(word[:64], sorted(known), n=1)
    return f'Did you mean "{shown(near[0])}"?' if near else ""
