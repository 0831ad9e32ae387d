"""What is wrong with rules that are each well written: those that can never match, and keys that are two.

Over the data as it was read, in place of models, so that it also runs on a file whose models cannot be built.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from pydantic import ValidationError

from broker.config.access import RuleSettings
from broker.config.checks import did_you_mean
from broker.config.directory import rule_of
from broker.config.document import Finding, Path, shown
from broker.config.problem import Fault
from broker.config.rules import seconds
from broker.core.domain import Domain
from broker.core.grants import Rule, full_name
from broker.core.match import Pattern
from broker.core.request import Kind
from broker.core.ruling import could_cover
from broker.core.satisfy import can_hold
from broker.core.shape import is_object

_LISTS = ("allow", "deny")


def grant_conflicts(organizations: object, servers: Sequence[str]) -> list[Finding]:
    """`organizations`: the section; what is malformed in it is somebody else's finding. `servers`: all keys."""
    found: list[Finding] = []
    hashes: dict[object, Path] = {}
    for path, level in _levels(organizations):
        rules = {word: _rules(level.get(word)) for word in _LISTS}
        for word in _LISTS:
            for index, rule in rules[word].items():
                found += _rule((*path, word, index), rule, servers)
        found += _covered(path, rules, servers)
        found += _limits((*path, "limits", "servers"), level.get("limits"), servers)
        if "hash" in level and isinstance(level["hash"], str):
            first = hashes.setdefault(level["hash"], path)
            if first != path:
                message = f"two keys with one hash: this one and {'.'.join(map(str, first[1:]))}"
                found.append(Finding((*path, "hash"), message, "Make a key of its own for each."))
    return found


def scope_conflicts(identity: object, servers: Sequence[str]) -> list[Finding]:
    """The same for the rules of scopes; `identity`: the section."""
    return [
        finding
        for path, issuer in _issuers(identity)
        for scope, rules in _items(issuer.get("scopes"))
        for index, rule in _rules(rules).items()
        for finding in _rule((*path, "scopes", scope, index), rule, servers)
    ]


def identity_advice(identity: object, organizations: object) -> list[Finding]:
    """What should be said of issuers: an organization that only the store can have."""
    known = [name for name, _ in _items(organizations)]
    found: list[Finding] = []
    for path, issuer in _issuers(identity):
        name = issuer.get("organization")
        if isinstance(name, str) and name not in known:
            remedy = did_you_mean(name, known) or "Nobody comes in with its tokens before it is made."
            message = f'there is no organization "{shown(name)}" in this file'
            found.append(Finding((*path, "organization"), message, remedy))
    return found


def _issuers(identity: object) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    issuers = identity.get("jwt") if is_object(identity) else None
    for index, issuer in enumerate(cast(Sequence[object], issuers) if isinstance(issuers, list | tuple) else ()):
        if is_object(issuer):
            yield ("identity", "jwt", index), issuer


def _items(data: object) -> list[tuple[str, object]]:
    return list(data.items()) if is_object(data) else []


def grant_advice(organizations: object, now: float) -> list[Finding]:
    """What is allowed, but should be said. `now`: seconds since 1970."""
    found: list[Finding] = []
    for path, level in _levels(organizations):
        expires = level.get("expires")
        if len(path) == 2 and "allow" not in level:
            remedy = 'Add allow: [{servers: ["*"]}], or what of it is meant.'
            found.append(Finding(path, "an organization without allow: nobody in it may use anything", remedy))
        if path[-2] != "keys" and not level.get("keys") and not level.get("teams"):
            what = "an organization without teams and keys" if len(path) == 2 else "a team without keys"
            found.append(Finding(path, f"{what}: nobody who is named in this file belongs to it"))
        if isinstance(expires, str) and _is_over(expires, now):
            found.append(Finding((*path, "expires"), "the key has expired", "Rotate it, or remove it."))
    return found


def _levels(organizations: object) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Every organization, team and key, with its path."""
    for path, organization in _members(("organizations",), organizations):
        yield path, organization
        yield from _members((*path, "keys"), organization.get("keys"))
        for below, team in _members((*path, "teams"), organization.get("teams")):
            yield below, team
            yield from _members((*below, "keys"), team.get("keys"))


def _members(path: Path, data: object) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for name, member in data.items() if is_object(data) else ():
        if is_object(member):
            yield (*path, name), member


def _rules(data: object) -> dict[int, Rule]:
    """The rules of a list that are well written, by their place."""
    found: dict[int, Rule] = {}
    for index, one in enumerate(cast(Sequence[object], data) if isinstance(data, list | tuple) else ()):
        try:
            found[index] = rule_of(RuleSettings.model_validate(one))
        except ValidationError:
            continue
    return found


def _rule(path: Path, rule: Rule, servers: Sequence[str]) -> Iterator[Finding]:
    if rule.servers is None and not rule.names:
        yield Finding(path, "a rule that names nothing", 'Name servers or kinds, as in {servers: ["*"]}.')
    for word, those in _written(rule):
        if not those:
            yield Finding((*path, word), "an empty list: the rule can never match", "Name something, or leave it out.")
    for index, pattern in enumerate(rule.servers or ()):
        if not any(map(pattern.matches, servers)):
            message = f'there is no server "{shown(pattern.text)}"'
            yield Finding((*path, "servers", index), message, did_you_mean(pattern.text, servers))
    mine = [key for key in servers if rule.servers is None or any(one.matches(key) for one in rule.servers)]
    for kind, patterns in rule.names.items():
        for index, pattern in enumerate(patterns):
            if mine and not any(pattern.could_begin(full_name(kind, key, "")) for key in mine):
                yield Finding((*path, str(kind), index), *_misses(kind, pattern, mine))
    if rule.when:
        yield from _when((*path, "when"), rule)


def _misses(kind: Kind, pattern: Pattern, servers: Sequence[str]) -> tuple[str, str]:
    message = f'no name of {kind} can fit "{shown(pattern.text)}": they begin with the key of a server of this rule'
    return message, f"Write {full_name(kind, servers[0], '<own name>')}."


def _when(path: Path, rule: Rule) -> Iterator[Finding]:
    others = [kind for kind in rule.names if kind is not Kind.TOOL]
    if others or (rule.names and Kind.TOOL not in rule.names):
        message = f"conditions are for tools, and this rule names {' and '.join(others)}"
        yield Finding(path, message, "Make two rules of it.")
    demands: dict[tuple[str, ...], Domain] = {}
    for one in rule.when:
        demands[one.path] = demands[one.path] & one.allowed if one.path in demands else one.allowed
    if not can_hold(demands):
        yield Finding(path, "no arguments can satisfy all of these conditions", "Remove what contradicts the rest.")


def _limits(path: Path, limits: object, servers: Sequence[str]) -> Iterator[Finding]:
    """Limits at servers that are not there: a limit that looks as if it held must not be missing."""
    for key, _ in _items(limits.get("servers") if is_object(limits) else None):
        if key not in servers:
            yield Finding((*path, key), f'there is no server "{shown(key)}"', did_you_mean(key, servers))


def _covered(path: Path, rules: Mapping[str, Mapping[int, Rule]], servers: Sequence[str]) -> Iterator[Finding]:
    """Rules that allow what another one of the same level always denies, of the servers there are; in doubt none."""
    denying = [(index, deny) for index, deny in rules["deny"].items() if not deny.when]
    for index, allow in rules["allow"].items():
        # Once for each rule, not for each pair of them: there may be hundreds of both.
        mine = [key for key in servers if could_cover(allow, key)] if denying else []
        for other, deny in denying:
            known: dict[tuple[Kind, str], bool] = {}
            if mine and all(_is_within_server(allow, deny, key, known) for key in mine):
                message = f"deny.{other} of the same level denies all that this rule allows"
                yield Finding((*path, "allow", index), message, "Remove one of them.")
                break


def _is_within_server(inner: Rule, outer: Rule, server: str, known: dict[tuple[Kind, str], bool]) -> bool:
    """Whether `outer` covers all that `inner` does of a server; False when in doubt. `known`: what was found out of the
    patterns of these two rules, for the next server."""
    if outer.servers is not None and not any(one.matches(server) for one in outer.servers):
        return False
    if not outer.names:
        return outer.servers is not None
    kinds = inner.names or {kind: (Pattern("*"),) for kind in ([Kind.TOOL] if inner.when else Kind)}
    for kind, patterns in kinds.items():
        beginning = full_name(kind, server, "")
        for pattern in (one for one in patterns if one.could_begin(beginning)):
            # What stands for any characters in the one can only be matched by what does in the other.
            text = f"{beginning}*" if pattern.text == "*" else pattern.text
            if (kind, text) not in known:
                known[kind, text] = any(one.matches(text) for one in outer.names.get(kind, ()))
            if not known[kind, text]:
                return False
    return True


def _written(rule: Rule) -> Iterator[tuple[str, Sequence[Pattern]]]:
    if rule.servers is not None:
        yield "servers", rule.servers
    for kind, patterns in rule.names.items():
        yield str(kind), patterns


def _is_over(text: str, now: float) -> bool:
    try:
        return seconds(text) <= now
    except Fault:
        return False
