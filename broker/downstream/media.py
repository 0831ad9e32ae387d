"""Media types: what a request says that it carries, and what it takes."""

from functools import lru_cache

from broker.downstream.web import JSON_MEDIA, Http, HttpError
from broker.errors import InvalidRequest


def media_type(http: Http) -> str:
    """The `Content-Type` of a request, without its parameters."""
    return (http.headers.get("content-type") or "").partition(";")[0].strip().lower()


def check_media(http: Http) -> None:
    """That a message is JSON, and its sender takes what answers come in. Raises: HttpError."""
    if http.headers.get("content-type") != JSON_MEDIA and media_type(http) != JSON_MEDIA:
        raise HttpError(415, InvalidRequest(f"Content-Type must be {JSON_MEDIA}"))
    if not accepts(http.headers.get("accept"), JSON_MEDIA, "text/event-stream"):
        raise HttpError(406, InvalidRequest("Accept must list application/json and text/event-stream"))
    http.head.is_fit = True


@lru_cache(maxsize=64)
def accepts(header: str | None, *media: str) -> bool:
    """Whether an Accept header admits all of `media`; without one, anything goes."""
    if header is None:
        return True
    accepted = {part.partition(";")[0].strip().lower() for part in header.split(",")}
    return all(accepted & {one, "*/*", f"{one.partition('/')[0]}/*"} for one in media)
