"""`/api/v1`: administration over HTTP, by the same functions as the command line.

The front has let the caller in. Paths are compared as they were sent, never decoded; what changes something needs the
content type of JSON and no page of another site behind it (I-36); what may not be known is not found, in one answer.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qsl

from pydantic import ValidationError

from broker.admin.bodies import Body
from broker.admin.errors import AdminError, Exists, FixedByFile, Invalid, NotAllowed, NotFound
from broker.admin.journal import Unrecorded
from broker.admin.openapi import document
from broker.admin.premises import Premises
from broker.admin.routes import ROUTES, Asked, Route
from broker.admin.sessions import Front
from broker.core import wire
from broker.downstream.media import media_type
from broker.downstream.web import JSON_HEADERS, JSON_MEDIA, Http
from broker.errors import printable
from broker.identity.admission import Admission
from broker.identity.key_secret import NoKeySecret
from broker.relay.served import Served
from broker.stores.errors import StoreError
from broker.usage.searching import Archive

log = logging.getLogger(__name__)

BASE: Final = "/api/v1"
DOCUMENT: Final = f"{BASE}/openapi.json"
_PLAIN = re.compile(rf"{BASE}(?:/[A-Za-z0-9][A-Za-z0-9._-]{{0,63}}){{1,8}}")
"""No escapes, no empty and no dot segments: there is one spelling of each path."""
_WORD: Final = r"([A-Za-z0-9][A-Za-z0-9-]{0,63})"
MAX_QUERY_FIELDS: Final = 16
"""More than any route has."""
MAX_FAULTS: Final = 20
"""Faults of a body that are said; whoever sends thousands knows."""
_HEADERS: Final = (*JSON_HEADERS, (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_CODES: Final[dict[type[Exception], tuple[int, str]]] = {
    NotAllowed: (403, "not_allowed"),
    FixedByFile: (409, "fixed_by_file"),
    Exists: (409, "exists"),
    Invalid: (400, "invalid"),
    StoreError: (503, "store_unavailable"),
    NoKeySecret: (503, "no_key_secret"),
    Unrecorded: (503, "not_recorded"),
}


class Unanswered(Exception):
    """A request that ends before anything is done."""

    def __init__(self, status: int, code: str, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


class Api:
    """See the module."""

    def __init__(self, premises: Premises, served: Callable[[], Served], archive: Archive) -> None:
        self._premises = premises
        self._served = served
        self._archive = archive

    async def serve(self, http: Http, admission: Admission, front: Front) -> None:
        """One request. Raises: HttpError, Disconnected."""
        headers: tuple[tuple[bytes, bytes], ...] = ()
        try:
            status, answer = await self._answer(http, admission, front)
        except Unanswered as refusal:
            status, answer, headers = refusal.status, _error(refusal.code, refusal.message), refusal.headers
        except NotFound:
            status, answer = 404, _error("not_found", "there is no such thing that you may see")
        except (AdminError, StoreError, NoKeySecret, Unrecorded) as error:
            status, code = next(found for kind, found in _CODES.items() if isinstance(error, kind))
            answer = _error(code, printable(str(error), 2000))
        http.respond(status, wire.encode(answer), (*_HEADERS, *headers))

    async def _answer(self, http: Http, admission: Admission, front: Front) -> tuple[int, Any]:
        if not _PLAIN.fullmatch(http.path):
            raise Unanswered(400, "invalid", "this path has escapes, empty or dot segments, or is too long")
        if (http.headers.get("sec-fetch-site") or "none") not in ("none", "same-origin"):
            raise Unanswered(403, "cross_site", "a page of another site may not ask here")
        if http.path == DOCUMENT and http.method == "GET":
            await http.body(0)
            return 200, _document()
        route, path = _find(http.method, http.path)
        body = await _body(route, http)
        query = _query(route, http)
        office = await self._premises.office()
        asked = Asked(office, admission.caller, self._served(), front, path, body, query, self._archive)
        found = await route.do(asked)
        where = {"worker": front.crew.worker.number} if route.is_per_worker else {}
        if not route.is_list:
            return route.status, asdict(found) | where
        items = [asdict(one) | where for one in found]
        if not route.is_per_worker or not front.crew.asks(http):
            return route.status, {"items": items}
        others, missing = await front.crew.items(http)
        return route.status, {"items": items + others, "missing": missing}


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


@cache
def _document() -> dict[str, Any]:
    return document(BASE)


@cache
def _patterns() -> list[tuple[re.Pattern[str], Route]]:
    return [(re.compile(BASE + re.sub(r"\{\w+\}", lambda _: _WORD, one.path)), one) for one in ROUTES]


def _find(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """Raises: Unanswered: 404 for no route, 405 for another method."""
    found = [(route, match) for pattern, route in _patterns() if (match := pattern.fullmatch(path))]
    for route, match in found:
        if route.method == method:
            return route, dict(zip(re.findall(r"\{(\w+)\}", route.path), match.groups(), strict=True))
    if not found:
        raise Unanswered(404, "not_found", "there is no such route")
    allow = ", ".join(sorted(route.method for route, _ in found))
    raise Unanswered(405, "method_not_allowed", f"allowed: {allow}", ((b"allow", allow.encode()),))


async def _body(route: Route, http: Http) -> Body | None:
    """Raises: Unanswered, BodyRefused."""
    if route.method == "GET":
        await http.body(0)
        return None
    if media_type(http) != JSON_MEDIA or "content-type" in http.headers.duplicated:
        raise Unanswered(415, "not_json", f"Content-Type must be {JSON_MEDIA}")
    data = await http.body(wire.FROM_CALLER.size)
    try:
        given = wire.decode_object(data, wire.FROM_CALLER) if data or route.body is not None else {}
    except wire.Malformed as error:
        raise Unanswered(400, "invalid", f"the body is not a JSON object: {error}") from None
    return _judged(route.body or Body, given)


def _query(route: Route, http: Http) -> Body | None:
    """Raises: Unanswered."""
    try:
        pairs = parse_qsl(
            http.query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(http.query),
            errors="strict",
            max_num_fields=MAX_QUERY_FIELDS,
        )
    except ValueError:
        raise Unanswered(400, "invalid", "the query cannot be read") from None
    given = dict(pairs)
    if len(given) < len(pairs):
        raise Unanswered(400, "invalid", "a name in the query comes twice")
    return _judged(route.query or Body, given)


def _judged(model: type[Body], given: dict[str, Any]) -> Body:
    """Raises: Unanswered, with all that is wrong; nothing of what was sent but the names of fields is said."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)[:MAX_FAULTS]
        said = [f"{printable('.'.join(map(str, one['loc'])), 100)}: {one['msg']}" for one in faults]
        raise Unanswered(400, "invalid", "; ".join(said)) from None
