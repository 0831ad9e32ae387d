"""What may differ through the broker, and nothing else: names, URIs, what belongs to one hop, and the rows of
"What changes when the eras differ" (docs/protocol.md).

`own` turns what came through the broker back, only at the places where a name or URI must be public; `expected` applies
the rows to what the upstream says itself. What is left is the difference.
"""

import copy
import json
import re
from typing import Any

from tests.fidelity.names import LEGACY, MODERN, Json, Names

META = "io.modelcontextprotocol/"
HOP = {META + name for name in ("protocolVersion", "clientInfo", "logLevel", "serverInfo", "subscriptionId")} | {
    "progressToken"
}
"""Keys of `_meta` of one hop. The client's capabilities are not here: they must be those of the caller."""
CAPABILITIES = META + "clientCapabilities"
TASKS = META + "tasks"
CACHING = ("ttlMs", "cacheScope")
ITEMS = {"tools": "name", "prompts": "name", "resources": "uri", "resourceTemplates": "uriTemplate"}
GREETED = ("capabilities", "instructions", "supportedVersions", "protocolVersion")


class Back:
    """Public names and URIs, turned back. What should have been public and is not is marked."""

    def __init__(self, names: Names) -> None:
        self.key = names.key
        self.known = {public: own for own, public in names.tools}

    def name(self, public: str) -> str:
        if public in self.known:
            return self.known[public]
        return public.removeprefix(f"{self.key}__") if public.startswith(f"{self.key}__") else f"NOT PUBLIC {public}"

    def uri(self, public: str) -> str:
        for mark, scheme in ((f"{self.key}+", ""), (f"ui://{self.key}+", "ui://")):
            if public.startswith(mark):
                return scheme + public.removeprefix(mark)
        return public if public.startswith("http") else f"NOT PUBLIC {public}"

    def item(self, field: str, item: Json) -> None:
        key = ITEMS[field]
        item[key] = self.name(item[key]) if key == "name" else self.uri(item[key])
        meta = item.get("_meta", {})
        if field == "tools" and "ui" in meta:
            meta["ui"]["resourceUri"] = self.uri(meta["ui"]["resourceUri"])
            meta["ui/resourceUri"] = self.uri(meta["ui/resourceUri"])

    def block(self, block: Json) -> None:
        if block["type"] == "resource_link":
            block["uri"] = self.uri(block["uri"])
        elif block["type"] == "resource":
            block["resource"]["uri"] = self.uri(block["resource"]["uri"])


def own(record: Json, names: Names, *, is_one_of_many: bool) -> Json:
    """What came through the broker, as the upstream would say it."""
    record, back = copy.deepcopy(record), Back(names)
    result = record.get("result", {})
    for field in ITEMS:
        if isinstance(result.get(field), list):
            marks = (f"{names.key}__", f"{names.key}+", f"ui://{names.key}+")
            result[field] = [item for item in result[field] if item[ITEMS[field]].startswith(marks)]
            for item in result[field]:
                back.item(field, item)
    for block in result.get("content", []):
        back.block(block)
    for message in result.get("messages", []):
        back.block(message["content"])
    for contents in result.get("contents", []):
        contents["uri"] = back.uri(contents["uri"])
    for holder in (result, *(notice.get("params", {}) for notice in record.get("notices", []))):
        if isinstance(holder.get("uri"), str):
            holder["uri"] = back.uri(holder["uri"])
    if "ui" in result.get("_meta", {}):
        result["_meta"]["ui"]["resourceUri"] = back.uri(result["_meta"]["ui"]["resourceUri"])
    data = record.get("error", {}).get("data")
    if isinstance(data, dict) and isinstance(data.get("uri"), str):
        data["uri"] = back.uri(data["uri"])
    for question in (one for asked in record.get("questions", []) for one in asked):
        if question["method"] == "probe/ask":
            question["params"]["uri"] = back.uri(question["params"]["uri"])
    if "instructions" in result:
        result["instructions"] = _own_instructions(result["instructions"], names.key, is_one_of_many)
    if is_one_of_many:
        for question in (one for asked in record.get("questions", []) for one in asked):
            if question["method"] == "elicitation/create":
                message = question["params"]["message"]
                mark = f"[{names.key}] "
                question["params"]["message"] = (
                    message.removeprefix(mark) if message.startswith(mark) else f"NO LABEL {message}"
                )
    return record


def _own_instructions(text: str, key: str, is_one_of_many: bool) -> str:
    if is_one_of_many:
        found = re.search(rf'<instructions server="{key}">\n?(.*?)\n?</instructions>', text, re.DOTALL)
        text = found[1] if found else f"NOT FOUND in {text}"
    # Only names of things are public there: `plain` in backticks, never the word.
    return re.sub(rf"`{key}__(\w+)`", r"`\1`", text)


def expected(title: str, record: Json, caller: str, upstream: str, capabilities: Json) -> Json:
    """What the upstream says itself in the caller's era, with the rows that apply to this pair of eras."""
    record = copy.deepcopy(record)
    result, error = record.get("result", {}), record.get("error")
    params = result.get("structuredContent")
    if title.startswith("call: parameters") and isinstance(params, dict) and upstream == MODERN:
        params["params"].setdefault("_meta", {})[CAPABILITIES] = capabilities
    if title.startswith("call: parameters") and isinstance(params, dict) and upstream == LEGACY:
        params["params"].get("_meta", {}).pop(CAPABILITIES, None)
    if error is not None and caller == MODERN and error["code"] == -32050:
        error["code"] = -32603  # 2026-07-28 basic: undefined codes of the reserved range must not be emitted
    if error is not None and (caller, upstream) == (MODERN, LEGACY) and error["code"] == -32021:
        error["code"] = -32603  # only a modern upstream can mean what the modern era means by it
    if "capabilities" in result and title == "greeting":
        _declared(result["capabilities"], caller, upstream)
    if caller == MODERN and upstream == LEGACY:
        _legacy_to_modern(result)
    elif caller == LEGACY and upstream == MODERN:
        _modern_to_legacy(record, result, error)
    return record


def _declared(capabilities: Json, caller: str, upstream: str) -> None:
    """Tasks are those of both sides or of none."""
    if caller != upstream:
        capabilities.pop("tasks", None)
        capabilities["extensions"].pop(TASKS, None)


def _legacy_to_modern(result: Json) -> None:
    if "contents" in result:
        result["ttlMs"], result["cacheScope"] = 0, "private"
    if "tools" in result:
        result["tools"] = [
            tool for tool in result["tools"] if tool.get("execution", {}).get("taskSupport") != "required"
        ]


def _modern_to_legacy(record: Json, result: Json, error: Json | None) -> None:
    for tool in result.get("tools", []):
        if tool.get("outputSchema", {}).get("type", "object") != "object":
            del tool["outputSchema"]
    if "structuredContent" in result and not isinstance(result["structuredContent"], dict):
        value = result.pop("structuredContent")
        result["content"] = result["content"] or [{"type": "text", "text": json.dumps(value)}]
    if error is not None and error["code"] in (-32020, -32021, -32022):
        error["code"] = -32603
    if error is not None and error["code"] == -32002:
        # The modern upstream says which URI it does not know; the legacy one need not.
        error["data"] = {"uri": "probe://nowhere"}


def plain(title: str, record: Json, caller: str, upstream: str) -> Any:
    """Either side without what belongs to one hop."""
    record = copy.deepcopy(record)
    result = record.get("result", {})
    _without_hop(result)
    if title == "greeting":
        return {name: result.get(name) for name in GREETED}
    if any(field in result for field in ITEMS):
        for name in CACHING:
            result.pop(name, None)
    structured = result.get("structuredContent")
    if title.startswith("call: parameters") and isinstance(structured, dict):
        _without_hop(structured["params"])
        structured["params"]["name"] = "mirror"
    for asked in record.get("questions", []):
        for question in asked:
            if (caller, upstream) == (LEGACY, MODERN) and "elicitationId" in question["params"]:
                question["params"]["elicitationId"] = "minted"
        # Several questions of one moment have no order; and those of one round of a modern upstream reach a legacy
        # caller one by one.
        asked.sort(key=lambda one: json.dumps(one, sort_keys=True))
    return record


def _without_hop(holder: Json) -> None:
    if "_meta" in holder:
        holder["_meta"] = {name: value for name, value in holder["_meta"].items() if name not in HOP}
        if not holder["_meta"]:
            del holder["_meta"]


def difference(left: Any, right: Any, path: str = "") -> list[str]:
    """Where two JSON values differ: `path: expected -> got`. 1 and 1.0 are not the same, nor is the order of names."""
    if type(left) is dict and type(right) is dict:
        rows = [f"{path}.{name}: {_short(left[name])} -> missing" for name in left if name not in right]
        rows += [f"{path}.{name}: added {_short(right[name])}" for name in right if name not in left]
        return rows + [row for n in left if n in right for row in difference(left[n], right[n], f"{path}.{n}")]
    if type(left) is list and type(right) is list:
        if len(left) != len(right):
            return [f"{path}: {len(left)} -> {len(right)} items: {_short(left)} -> {_short(right)}"]
        pairs = enumerate(zip(left, right, strict=True))
        return [row for n, (one, two) in pairs for row in difference(one, two, f"{path}[{n}]")]
    if type(left) is type(right) and left == right:
        return []
    return [f"{path}: {_short(left)} -> {_short(right)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 160 else f"{text[:80]}...{text[-70:]}"
