"""Results in readable form: text as text, what is no text as a line that says what it is."""

import json
from collections.abc import Iterator
from typing import Any, cast

from broker.cli.words import block, line


def of_call(result: dict[str, Any]) -> Iterator[str]:
    """The content of a tool's result; its structured content, if it says nothing in words."""
    items = _objects(result.get("content"))
    yield from (_item(item) for item in items)
    if "structuredContent" in result and not any(item.get("type") == "text" for item in items):
        yield block(json.dumps(result["structuredContent"], indent=2, ensure_ascii=False))


def of_read(result: dict[str, Any]) -> Iterator[str]:
    """The contents of a resource."""
    contents = _objects(result.get("contents"))
    for one in contents:
        if len(contents) > 1:
            yield f"{line(one.get('uri', ''))}:"
        yield _contents(one)


def of_prompt(result: dict[str, Any]) -> Iterator[str]:
    """The messages of a prompt, each under the name of its role."""
    for message in _objects(result.get("messages")):
        content = "\n".join(_item(item) for item in _objects([message.get("content")]))
        yield f"{line(message.get('role', '?'))}: {content}"


def _objects(value: object) -> list[dict[str, Any]]:
    found = cast(list[Any], value) if isinstance(value, list) else []
    return [one for one in found if isinstance(one, dict)]


def _item(item: dict[str, Any]) -> str:
    match item.get("type"):
        case "text":
            return block(str(item.get("text", "")))
        case "image" | "audio" as what:
            return _blob(what, item.get("mimeType"), item.get("data"))
        case "resource_link":
            about = ", ".join(line(item[key]) for key in ("name", "mimeType") if isinstance(item.get(key), str))
            return f"[link {line(item.get('uri', ''), 1100)} ({about})]"
        case "resource" if isinstance(item.get("resource"), dict):
            resource = item["resource"]
            return f"[resource {line(resource.get('uri', ''), 1100)}]\n{_contents(resource)}"
        case other:
            return f"[{line(other)}: use --json to see it]"


def _contents(one: dict[str, Any]) -> str:
    text = one.get("text")
    return block(text) if isinstance(text, str) else _blob("data", one.get("mimeType"), one.get("blob"))


def _blob(what: str, mime: object, data: object) -> str:
    encoded = data if isinstance(data, str) else ""
    size = len(encoded) * 3 // 4 - encoded[-2:].count("=")
    return f"[{what} {line(mime or 'of unknown type')}, {size} bytes: use --json to have it]"
