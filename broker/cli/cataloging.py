"""`mcp-broker catalog`: what is served, under which names, and what it costs a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from broker.admin.insight import seen
from broker.cli.begin import begin, read_config, run_to_end
from broker.cli.exits import BAD_INPUT, FAILED, OK, Stop
from broker.cli.guise import put_on
from broker.cli.local import Local
from broker.cli.screen import Node, Screen
from broker.cli.survey import Row, cleaned, dropped, isolated, survey
from broker.cli.words import count, line
from broker.compiled import policy_of
from broker.config import Loaded
from broker.core import wire
from broker.core.instructions import estimate_tokens
from broker.core.request import LISTS, Kind

_DETAIL: Final = 300
"""Characters of a description, where no terminal cuts it shorter."""
_WORDS: Final = {
    Kind.TOOL: "tools",
    Kind.PROMPT: "prompts",
    Kind.RESOURCE: "resources",
    Kind.TEMPLATE: "resource templates",
}

Document = dict[str, Any]


def catalog(config: Path | None, *, who: str | None, view: str, wait: float | None, as_json: bool, level: str) -> int:
    """The exit code. `who`: the caller whose catalog it is, as `guise` has it. Raises: Stop."""
    screen = begin(level)
    loaded = read_config(config)
    local = Local(loaded, members(loaded, view))

    async def main() -> int:
        local.caller = await put_on(local, who)
        return await _catalog(local, view, screen, wait, as_json=as_json)

    return run_to_end(main)


def members(loaded: Loaded, view: str) -> frozenset[str] | None:
    """The servers of a view. Raises: Stop, if there is no such view."""
    if not view:
        return None
    views = policy_of(loaded.config).views
    if view not in views:
        known = ", ".join(sorted(views)) or "none"
        raise Stop(f"there is no view {line(view)!r}. A view is a server or a group: {known}.", BAD_INPUT)
    return views[view]


async def _catalog(local: Local, view: str, screen: Screen, wait: float | None, *, as_json: bool) -> int:
    async with local.running():
        rows = await survey(local, screen, wait)
        visible = local.generation.shown(view, local.caller)
        shown = {key: row for key, row in rows.items() if key in visible}
        document = await _document(local, view, shown)
        if as_json:
            screen.json(document)
        else:
            screen.tree(_tree(local, document, view))
    has_something = not shown or any(row["version"] is not None for row in shown.values())
    return OK if has_something else FAILED


async def _document(local: Local, view: str, rows: dict[str, Row]) -> Document:
    found = await seen(local.generation, local.caller, view)
    items, instructions = found.items, found.instructions
    servers = {
        key: {**row, **_share(local, key, items), "dropped": dropped(local, key), "cleaned": cleaned(local, key)}
        for key, row in rows.items()
    }
    costs: dict[str, int] = {}
    for key, row in rows.items():
        known = row["version"] is not None
        costs[key] = await local.tokens(_of_server(local, key, items), key) if known else 0
    everything = sum(len(wire.encode(item)) for those in items.values() for item in those)
    return {
        "servers": servers,
        **{LISTS[kind].member: those for kind, those in items.items()},
        "instructions": instructions,
        "tokens": {
            "total": estimate_tokens(everything + len(instructions or "")),
            "instructions": estimate_tokens(len(instructions or "")),
            "servers": costs,
        },
        "missing": _missing(rows),
    }


def _missing(rows: dict[str, Row]) -> dict[str, str]:
    return {key: row["reason"] for key, row in rows.items() if row["state"] != "ready"}


def _share(local: Local, key: str, items: Mapping[Kind, list[dict[str, Any]]]) -> dict[str, Any]:
    """A server's part: its public names by list, and the own names that differ from them."""
    share: dict[str, Any] = {}
    own: dict[str, str] = {}
    for kind, found in items.items():
        names = [item[LISTS[kind].name_key] for item in found]
        entries = [local.generation.catalog.lookup(kind, name) for name in names]
        mine = [entry for entry in entries if entry is not None and entry.server == key]
        share[LISTS[kind].member] = [entry.public for entry in mine]
        own.update((entry.public, entry.own) for entry in mine if entry.own != entry.public)
    return {**share, "own": own}


def _of_server(local: Local, key: str, items: Mapping[Kind, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    mine = {kind: set(_share(local, key, items)[LISTS[kind].member]) for kind in Kind}
    return [item for kind in Kind for item in items[kind] if item[LISTS[kind].name_key] in mine[kind]]


def _tree(local: Local, document: Document, view: str) -> Node:
    tokens, name = document["tokens"], local.generation.config.broker.name
    children = [_server(local, key, row, document) for key, row in document["servers"].items()]
    text = document["instructions"]
    if text:
        children.append(Node("instructions", f"{len(text)} characters, ~{tokens['instructions']} tokens", "bold"))
    totals = [count(len(document[LISTS[kind].member]), _WORDS[kind].removesuffix("s")) for kind in Kind]
    title = f"{line(name)}, view {view}" if view else line(name)
    return Node(title, f"{', '.join(totals)}; ~{tokens['total']} tokens in all", "bold", children)


def _server(local: Local, key: str, row: Row, document: Document) -> Node:
    tokens = document["tokens"]["servers"][key]
    is_ready = row["state"] == "ready"
    told = f"{row['version']}, ~{tokens} tokens" if is_ready else f"{row['state']}: {line(row['reason'], 1000)}"
    if not is_ready and tokens:
        told += " (shown as last known)"
    if apart := isolated(local, key):
        told += f"; {apart}"
    groups = [group for kind in Kind if (group := _group(kind, row, document)) is not None]
    if row["dropped"]:
        lost = [Node(f"{one['kind']} {line(one['name'])}", line(one["reason"])) for one in row["dropped"]]
        groups.append(Node("not served", "", "yellow", lost))
    if row["cleaned"]:
        told_of = [Node(f"{one['kind']} {line(one['name'])}", line(one["what"])) for one in row["cleaned"]]
        groups.append(Node("cleaned", "", "yellow", told_of))
    return Node(key, told, "bold green" if is_ready else "bold red", groups)


def _group(kind: Kind, row: Row, document: Document) -> Node | None:
    listed = LISTS[kind]
    names = row[listed.member]
    if not names:
        return None
    definitions = {item[listed.name_key]: item for item in document[listed.member]}
    rows = [_item(name, row["own"].get(name, name), definitions[name]) for name in names]
    return Node(_WORDS[kind], str(len(names)), "", rows)


def _item(public: str, own: str, definition: dict[str, Any]) -> Node:
    """One line: the public name, the own one where it cannot be read from it, and what it is for."""
    told = definition.get("description") or definition.get("title") or ""
    is_plain = public == own or public.endswith((f"__{own}", f"+{own}"))
    renamed = "" if is_plain else f"({line(own, 80)}) "
    return Node(line(public, 1100), renamed + line(told, _DETAIL), "cyan")
