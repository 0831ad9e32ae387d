"""What the probe upstream says: every optional field of every kind of thing, and fields that nobody knows."""

from typing import Any

Json = dict[str, Any]

ODD = 'grüß\u2028 \U0001f600 \\ " \u0000'
"""Text that careless code changes."""
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
META: Json = {"example.com/vendor": {"kept": True, "deep": [1, None, {"x": 2**53 + 1}]}, "probe/odd": ODD}
ICONS: list[Json] = [
    {"src": "https://example.com/i.png", "mimeType": "image/png", "sizes": ["48x48", "any"], "theme": "dark", "x": 1},
    {"src": f"data:image/png;base64,{PNG}"},
]
NOTES: Json = {"audience": ["user", "assistant"], "priority": 0.5, "lastModified": "2026-01-02T03:04:05Z", "x": [0]}
UNKNOWN: Json = {"probeUnknown": {"list": [1.5, 1e300, -0.0, None], "uri": "probe://static/readme", "name": "plain"}}
SEEN = 'grüß \U0001f600 \\ "'
"""The like of it for texts that are read: what nobody sees is taken out of those (`core/cleaning.py`)."""
COMMON: Json = {"title": "A title", "description": f"See probe://static/readme. {SEEN}", "icons": ICONS, "_meta": META}
README, BLOB, OPAQUE, WIDGET = "probe://static/readme", "probe://static/blob", "mailto:a@b.c", "ui://widget/main.html"
TEMPLATE, UNLISTED, FOREIGN = "probe://docs/{id}{?q*}", "probe://docs/alpha?q=1", "https://example.com/not-ours"

OBJECT: Json = {"type": "object"}
SCHEMA: Json = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"text": {"type": "string", "default": "probe://static/readme"}, "node": {"$ref": "#/$defs/node"}},
    "required": [],
    "additionalProperties": False,
    "$defs": {"node": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
    "x-unknown": {"name": "plain"},
}
HINTS: Json = {
    "title": "Hint",
    "readOnlyHint": True,
    "destructiveHint": False,
    "idempotentHint": True,
    "openWorldHint": False,
    "x": None,
}

RESULTS: dict[str, Json] = {
    "plain": {"content": [{"type": "text", "text": ODD}]},
    "all_fields": {
        "content": [
            {"type": "text", "text": "probe://static/readme stays", "annotations": NOTES, "_meta": META, **UNKNOWN},
            {"type": "image", "data": PNG, "mimeType": "image/png", "annotations": NOTES, "_meta": META, **UNKNOWN},
            {"type": "audio", "data": "UklGRg==", "mimeType": "audio/wav", "annotations": NOTES, **UNKNOWN},
            {"type": "from_the_future", "payload": [1, {"uri": README}]},
        ],
        "structuredContent": {"uri": README, "n": 2**63, "f": 0.1, "deep": [[[{}]]], "empty": {}, "null": None},
        "isError": False,
        "_meta": META,
        **UNKNOWN,
    },
    "links": {
        "content": [
            {"type": "resource_link", "name": "readme", "uri": README, "size": 7, "mimeType": "text/plain", **COMMON},
            {"type": "resource_link", "name": "unlisted", "uri": UNLISTED},
            {"type": "resource_link", "name": "foreign", "uri": FOREIGN},
            {
                "type": "resource",
                "resource": {"uri": README, "mimeType": "text/plain", "text": README, "_meta": META, **UNKNOWN},
                "annotations": NOTES,
                "_meta": META,
            },
            {"type": "resource", "resource": {"uri": WIDGET, "blob": "AAEC", "mimeType": "text/html"}},
        ],
    },
    "error_result": {"content": [{"type": "text", "text": "failed"}], "isError": True, "structuredContent": {"why": 1}},
    "empty": {"content": []},
    "structured_list": {"content": [{"type": "text", "text": "[1]"}], "structuredContent": [1, "two", None]},
    "structured_bare": {"content": [], "structuredContent": 7},
    "dotted.name": {"content": [{"type": "text", "text": "dots"}]},
    "with_ui": {"content": [{"type": "text", "text": "ui"}], "_meta": {"ui": {"resourceUri": WIDGET}}},
}
ERRORS: dict[str, Json] = {
    "error_data": {"code": -32000, "message": ODD, "data": {"list": [1, None], "name": "plain", "nested": {"uri": 1}}},
    "error_positive": {"code": 1234, "message": "", "data": "text"},
    "error_uri": {"code": -32603, "message": "no", "data": {"uri": README, "more": True}},
    "error_bare": {"code": -32602, "message": "bad argument"},
    "error_undefined": {"code": -32050, "message": "of the reserved range", "data": [1]},
}
MODERN_ERRORS: dict[str, Json] = {
    "error_modern": {"code": -32021, "message": "capability", "data": {"requiredCapabilities": {"sampling": {}}}},
}
DEEDS = (
    "mirror",
    "progress",
    "logs",
    "slow",
    "was_cancelled",
    "roots_changed",
    "url_required",
    "complete_url",
    "speaks",
    "asks_beyond",
    "touch",
)
"""Tools that do something; see upstream.py. Further ones ask: `ask_<question>`."""

FORM: Json = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "title": "Name", "minLength": 1, "format": "email", "default": "a@b.c"},
        "colour": {"type": "string", "oneOf": [{"const": "r", "title": "Red"}]},
        "many": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "minItems": 1},
        "old": {"type": "string", "enum": ["x"], "enumNames": ["X"]},
    },
    "required": ["name"],
    "x": 1,
}
IMAGE: Json = {"type": "image", "data": PNG, "mimeType": "image/png", "annotations": NOTES}
TOOL_USE: Json = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris", "x": None}}
QUESTIONS: dict[str, dict[str, Json]] = {
    "form": {
        "a": {
            "method": "elicitation/create",
            "params": {"mode": "form", "message": ODD, "requestedSchema": FORM, "_meta": META, **UNKNOWN},
        }
    },
    "bare_form": {"a": {"method": "elicitation/create", "params": {"message": "Who?", "requestedSchema": OBJECT}}},
    "url": {
        "a": {
            "method": "elicitation/create",
            "params": {"mode": "url", "message": "Go", "url": "https://example.com/?a=b#c", "elicitationId": "e-1"},
        }
    },
    "sampling": {
        "a": {
            "method": "sampling/createMessage",
            "params": {
                "messages": [
                    {"role": "user", "content": {"type": "text", "text": ODD, "_meta": META}},
                    {"role": "assistant", "content": [TOOL_USE]},
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "tool_result",
                                "toolUseId": "t1",
                                "content": [IMAGE],
                                "structuredContent": {"t": 1},
                            }
                        ],
                    },
                    {"role": "user", "content": IMAGE},
                ],
                "modelPreferences": {"hints": [{"name": "claude"}], "costPriority": 0.1, "speedPriority": 1},
                "systemPrompt": "Be brief.",
                "includeContext": "none",
                "temperature": 0.0,
                "maxTokens": 100,
                "stopSequences": ["\n"],
                "metadata": {"provider": {"x": None}},
                "tools": [{"name": "weather", "inputSchema": SCHEMA, "description": "W"}],
                "toolChoice": {"mode": "auto"},
                **UNKNOWN,
            },
        }
    },
    "roots": {"a": {"method": "roots/list", "params": {"_meta": META}}},
    "bare_roots": {"a": {"method": "roots/list"}},
    "declined": {
        "a": {"method": "elicitation/create", "params": {"message": "decline", "requestedSchema": OBJECT}},
    },
}
QUESTIONS["three"] = {
    "one": QUESTIONS["bare_form"]["a"],
    "two": QUESTIONS["sampling"]["a"],
    "three": QUESTIONS["roots"]["a"],
}
ANSWERS: dict[str, Json] = {
    "elicitation/create": {
        "action": "accept",
        "content": {"name": ODD, "many": ["a"], "n": 1.5},
        "_meta": META,
        "x": 1,
    },
    "sampling/createMessage": {
        "role": "assistant",
        "model": "model-1",
        "stopReason": "toolUse",
        "content": [{"type": "text", "text": ODD}, TOOL_USE, IMAGE],
        "_meta": META,
        **UNKNOWN,
    },
    "roots/list": {"roots": [{"uri": "file:///home/a", "name": "a", "_meta": META, **UNKNOWN}], "_meta": META},
}
DECLINED: Json = {"action": "decline", "x": [1]}
STATE = f"state {ODD} end"

_TOOL_NAMES = [*RESULTS, *ERRORS, *MODERN_ERRORS, *DEEDS, *(f"ask_{name}" for name in QUESTIONS), "ask_twice"]
TOOLS: list[Json] = [
    {
        "name": "described",
        "inputSchema": SCHEMA,
        "outputSchema": {**SCHEMA, "title": "Out"},
        "annotations": HINTS,
        "execution": {"taskSupport": "optional", "x": 1},
        **COMMON,
        **UNKNOWN,
    },
    {
        "name": "widget",
        "inputSchema": OBJECT,
        "_meta": {**META, "ui": {"resourceUri": WIDGET, "x": 1}, "ui/resourceUri": WIDGET},
    },
    {"name": "as_task", "inputSchema": OBJECT, "execution": {"taskSupport": "required"}},
    {"name": "lists", "inputSchema": OBJECT, "outputSchema": {"type": "array", "items": {"type": "integer"}}},
    *({"name": name, "inputSchema": OBJECT} for name in _TOOL_NAMES),
]
PROMPTS: list[Json] = [
    {
        "name": "greet",
        "arguments": [{"name": "who", "title": "Who", "description": "Whom", "required": True, "x": 1}, {"name": "b"}],
        **COMMON,
        **UNKNOWN,
    },
    {"name": "asks"},
    {"name": "fails"},
]
PROMPT: Json = {
    "description": "A prompt",
    "messages": [
        {"role": "user", "content": {"type": "text", "text": ODD, "annotations": NOTES, "_meta": META}, **UNKNOWN},
        {"role": "assistant", "content": IMAGE},
        {"role": "user", "content": {"type": "resource", "resource": {"uri": README, "text": "r", **UNKNOWN}}},
        {"role": "user", "content": {"type": "resource_link", "uri": BLOB, "name": "blob", **COMMON}},
    ],
    "_meta": META,
    **UNKNOWN,
}
RESOURCES: list[Json] = [
    {"name": "readme", "uri": README, "mimeType": "text/plain", "size": 7, "annotations": NOTES, **COMMON, **UNKNOWN},
    {"name": "blob", "uri": BLOB, "mimeType": "application/octet-stream"},
    {"name": "mail", "uri": OPAQUE},
    {"name": "widget", "uri": WIDGET, "mimeType": "text/html;profile=mcp-app", "_meta": {"ui": {"csp": {}}}},
    {"name": "asks", "uri": "probe://asks"},
]
TEMPLATES: list[Json] = [
    {"name": "doc", "uriTemplate": TEMPLATE, "mimeType": "text/plain", "annotations": NOTES, **COMMON, **UNKNOWN}
]
INSTRUCTIONS = "Use `plain` first, then `greet`. The word plain stays; see probe://static/readme."
EXTENSION, TASKS = "probe.example/x", "io.modelcontextprotocol/tasks"
OF_ERA: dict[str, Json] = {
    "legacy": {
        "extensions": {EXTENSION: {"of": "the server", "l": [1.5]}},
        "experimental": {"probe": {"x": None}},
        "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}},
    },
    "modern": {
        "extensions": {EXTENSION: {"of": "the server", "l": [1.5]}, TASKS: {}},
        "experimental": {"probe": {"x": None}},
    },
}
"""Capabilities beyond the core, which the decoys do not have: of several servers nobody could be meant."""
CAPABILITIES: Json = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "completions": {},
    "logging": {},
}


def contents_of(uri: str) -> list[Json] | None:
    """What is read at a URI, or None if there is nothing."""
    if uri in (README, OPAQUE, WIDGET, UNLISTED):
        return [
            {"uri": uri, "mimeType": "text/plain", "text": f"{uri} {ODD}", "_meta": META, **UNKNOWN},
            {"uri": README, "text": "a second"},
        ]
    return [{"uri": uri, "mimeType": "application/octet-stream", "blob": "AAECAwQ="}] if uri == BLOB else None
