"""The OpenAPI 3.1 document of the API, made from its table of routes."""

import re
from typing import Any, Final

from pydantic import TypeAdapter

from broker import __version__
from broker.admin.bodies import Body
from broker.admin.routes import ROUTES, Route

_REFERENCE: Final = "#/components/schemas/{model}"
_MISSING: Final = "Numbers of workers that did not answer; only where there are several."
_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}


def document(base: str) -> dict[str, Any]:
    """The whole document; `base`: the path before every route."""
    schemas: dict[str, Any] = {"Error": _ERROR}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(base + route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "mcp-broker administration", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{"bearer": []}, {"key": []}],
    }


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    result = _schema(route.result, schemas, "serialization")
    if route.is_list:
        properties: dict[str, Any] = {"items": {"type": "array", "items": result}}
        if route.is_per_worker:
            properties["missing"] = {"type": "array", "items": {"type": "integer"}, "description": _MISSING}
        result = {"type": "object", "required": ["items"], "properties": properties}
    found: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.do.__name__.removeprefix("_") + ("_in_team" if "{team}/members" in route.path else ""),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"\{(\w+)\}", route.path)
        ],
        "responses": {
            str(route.status): {"description": "Done", "content": _json(result)},
            "default": {"description": "Not done", "content": _json({"$ref": _REFERENCE.format(model="Error")})},
        },
    }
    if route.query is not None:
        found["parameters"] += _query(route.query)
    if route.body is not None:
        found["requestBody"] = {"required": True, "content": _json(_schema(route.body, schemas, "validation"))}
    return found


def _query(model: type[Body]) -> list[dict[str, Any]]:
    schema = model.model_json_schema(ref_template=_REFERENCE)
    needed = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in needed, "schema": those}
        for name, those in schema["properties"].items()
    ]


def _schema(of: type, schemas: dict[str, Any], mode: Any) -> dict[str, Any]:
    schema = TypeAdapter(of).json_schema(ref_template=_REFERENCE, mode=mode)
    schemas.update(schema.pop("$defs", {}))
    schemas[of.__name__] = schema
    return {"$ref": _REFERENCE.format(model=of.__name__)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
