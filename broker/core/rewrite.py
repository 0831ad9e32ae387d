"""Where URIs stand in what an upstream sends, and their public form there.

Everything happens in place, on objects that were parsed from the wire and belong to this message alone.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from broker.core.shape import is_array, is_object

Publish = Callable[[str], str]
"""A server's own URI -> its public form (or the same, for a URI that nobody here serves)."""

APP_KEYS: Final = frozenset({"ui", "ui/resourceUri"})
"""Keys of `_meta` that name a page of MCP Apps: today's, and that of the first drafts."""


def rewrite_result(method: str, result: dict[str, Any], publish: Publish) -> None:
    """The URIs of one result: links and embedded resources, and the contents of a read."""
    match method:
        case "tools/call":
            blocks = result.get("content")
            if "_meta" in result:
                result.update(rewrite_app_meta(result, publish))
        case "prompts/get":
            blocks = _blocks_of(result.get("messages"))
        case "resources/read":
            blocks = None
            for contents in _objects(result.get("contents")):
                _rewrite_uri(contents, publish)
        case _:
            return
    for block in blocks if is_array(blocks) else ():  # without a list of the objects in it: most results come by here
        if is_object(block):
            kind = block.get("type")
            if kind == "resource_link":
                _rewrite_uri(block, publish)
            elif kind == "resource" and is_object(block.get("resource")):
                _rewrite_uri(block["resource"], publish)


def rewrite_foreign(result: dict[str, Any], publish: Publish, names: Mapping[str, str]) -> None:
    """A result, or the parameters of a notification, of an extension: the fields that the core knows, in place.

    `names` are those of the server's tools and prompts, to their public ones.
    """
    for method in ("tools/call", "prompts/get", "resources/read"):
        rewrite_result(method, result, publish)
    _rewrite_uri(result, publish)
    for item in (*_objects(result.get("tools")), *_objects(result.get("prompts"))):
        if isinstance(item.get("name"), str):
            item["name"] = names.get(item["name"], item["name"])
    for item in (*_objects(result.get("resources")), *_objects(result.get("resourceTemplates"))):
        _rewrite_uri(item, publish)
        if isinstance(item.get("uriTemplate"), str):
            item["uriTemplate"] = publish(item["uriTemplate"])


def names_app(tool: Mapping[str, Any]) -> bool:
    """Whether a tool's definition names a page of MCP Apps."""
    meta = tool.get("_meta")
    return is_object(meta) and (is_object(meta.get("ui")) or isinstance(meta.get("ui/resourceUri"), str))


def rewrite_app_meta(holder: dict[str, Any], publish: Publish) -> dict[str, Any]:
    """A tool's definition, or a result, with the `ui://` resource that its `_meta` names (MCP Apps) in public form; a
    copy, if there is one."""
    meta = holder.get("_meta")
    if not is_object(meta) or APP_KEYS.isdisjoint(meta):
        return holder
    meta = dict(meta)
    ui = meta.get("ui")
    if is_object(ui) and isinstance(ui.get("resourceUri"), str):
        meta["ui"] = {**ui, "resourceUri": publish(ui["resourceUri"])}
    if isinstance(meta.get("ui/resourceUri"), str):  # the first drafts of MCP Apps
        meta["ui/resourceUri"] = publish(meta["ui/resourceUri"])
    return {**holder, "_meta": meta}


def rewrite_error_data(data: Any, publish: Publish) -> Any:
    """An error's data with its `uri` in public form."""
    if is_object(data) and isinstance(data.get("uri"), str):
        return {**data, "uri": publish(data["uri"])}
    return data


def _blocks_of(messages: object) -> list[Any]:
    """The content of the messages of a prompt, each of which has one block or several."""
    contents = [message.get("content") for message in _objects(messages)]
    return [block for content in contents for block in (content if is_array(content) else [content])]


def _rewrite_uri(holder: dict[str, Any], publish: Publish) -> None:
    if isinstance(holder.get("uri"), str):
        holder["uri"] = publish(holder["uri"])


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if is_object(item)] if is_array(value) else []
