"""`/metrics`: for an administrator's key, or for everybody, or not there at all, as the configuration says."""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from broker.core.caller import Role
from broker.downstream.crew import NO_CREW, Crew
from broker.downstream.door import Door
from broker.downstream.web import Http, HttpError
from broker.errors import InvalidRequest
from broker.usage.gauges import Gauge
from broker.usage.meter import Counts

PATH: Final = "/metrics"

Access = Literal["admin", "public"]


@dataclass(frozen=True, slots=True)
class Metrics:
    """What is told, and to whom."""

    counts: Counts
    gauges: Callable[[], Iterable[Gauge]]
    access: Access

    async def serve(self, http: Http, door: Door, more: Iterable[Gauge], crew: Crew = NO_CREW) -> None:
        """Answer. `more`: what only the front knows. Raises: HttpError."""
        if self.access == "public":
            door.check_site(http)
        elif (await door.admit(http, PATH)).caller.role is not Role.ADMIN:
            raise HttpError(403, InvalidRequest("metrics are for administrators"))
        if http.method not in ("GET", "HEAD"):
            raise HttpError.not_allowed("GET")
        exposition: Any = importlib.import_module("broker.usage.exposition")
        body: bytes = exposition.page(self.counts, lambda: (*self.gauges(), *more))
        if crew.asks(http):
            body = exposition.merged([(crew.worker.number, body), *await crew.answers(http)])
        http.respond(200, body, ((b"content-type", exposition.CONTENT_TYPE),))
