"""What this process must not say. One place, since a secret of one configuration, key or caller is one for all of it.

Whatever is revealed is kept here (`config/secret.py`), and every text that others have written, or that nobody has
looked at, passes here on its way out: log lines, errors, states of servers, traces.
"""

from typing import Any, Final

from broker.core import wire
from broker.core.era import RELATED_TASK
from broker.core.redaction import KnownSecrets
from broker.core.tasks import related_task
from broker.errors import (
    MAX_FOREIGN_TEXT,
    URL_ELICITATION_REQUIRED,
    BrokerError,
    MalformedAnswer,
    UpstreamAnsweredError,
    UpstreamUnavailable,
    printable,
)

MAX_ERROR_TEXT: Final = 4096
"""Characters of the message of an upstream's error: what is longer is no message, and a model reads it all."""
MAX_ERROR_DATA: Final = 64 * 1024
"""Bytes of its data, encoded. Without a bound an error would carry what a result may not."""
REACH: Final = 4096
"""Characters before the end of what is looked at of a long text: they are not told, since a secret that begins in them
may end behind it, and half a secret has no shape."""
MAX_QUOTED: Final = 36 * 1024
"""Bytes of an upstream's output that are looked at for the few that are quoted: more than `MAX_FOREIGN_TEXT` and twice
`REACH`, also of characters of four bytes, so that no secret in what is told is cut off."""
MAX_REPORT: Final = 256 * 1024
"""Bytes of a report (a log message, progress, a status), encoded, that is looked through: nobody waits for reports, so
nothing may be held by one. Of a larger one only what the protocol needs is told."""
LEFT_OUT: Final = f"left out: this report is larger than {MAX_REPORT} bytes"
_SAID_IN_SHORT: Final = frozenset({"data", "message", "statusMessage"})
"""Members of reports that hold what is said: that there was something is told."""
_IDS: Final = frozenset({"taskId"})
TOO_LARGE: Final = f"the data of this error is larger than {MAX_ERROR_DATA} bytes"

_known: Final = KnownSecrets()


def keep_secret(text: str) -> None:
    """Say it no more, from now on."""
    _known.learn(text)


def scrubbed(text: str) -> str:
    """`text` without known secrets, and without what looks like one."""
    return _known.scrubbed(text)


def scrubbed_json(value: Any) -> Any:
    """A JSON value likewise. A MiB takes 5 ms in one text, and up to 100 ms in very many; up to 70 ms more for known
    secrets, however many they are."""
    return _known.scrubbed_in(value)


def scrubbed_report(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a notification likewise, but for the id of its task, which says where it belongs. Of what is
    larger than `MAX_REPORT` only that, its numbers and short words are told.
    """
    ids = {name: one for name in _IDS & params.keys() if isinstance(one := params[name], str)}
    related = related_task(params)
    if wire.is_longer(params, MAX_REPORT):
        params = {name: one for name, one in params.items() if name in _SAID_IN_SHORT or _is_short(one)}
        params |= {name: LEFT_OUT for name in _SAID_IN_SHORT & params.keys() if not _is_short(params[name])}
    found = {**_known.scrubbed_in(params), **ids}
    return found if related is None else _with_task(found, related)


def _with_task(report: dict[str, Any], task_id: str) -> dict[str, Any]:
    meta = report.get("_meta", {})
    return {**report, "_meta": {**meta, RELATED_TASK: {**meta.get(RELATED_TASK, {}), "taskId": task_id}}}


def _is_short(value: Any) -> bool:
    return len(value) <= MAX_FOREIGN_TEXT if isinstance(value, str) else value is None or isinstance(value, int | float)


def foreign(text: str, limit: int = MAX_FOREIGN_TEXT) -> str:
    """Text of an upstream (a page, a line of stderr, an exception) as it may be quoted: scrubbed, escaped, then cut."""
    return printable(_beginning(text, limit), limit)


def of_upstream(error: BrokerError) -> BrokerError:
    """An error that has words of an upstream in it, as its caller may read them; any other is the same.

    Code, message and data of an upstream's own error pass, scrubbed and capped. The URLs of -32042 must still work, so
    in those only known secrets are hidden.
    """
    if isinstance(error, UpstreamAnsweredError):
        is_for_use = error.code == URL_ELICITATION_REQUIRED
        data = _capped(error.data)  # first: what is looked through must be bounded
        data = _known.without_in(data) if is_for_use else _known.scrubbed_in(data)
        return UpstreamAnsweredError(_cut(_beginning(error.message, MAX_ERROR_TEXT)), data, code=error.code)
    if isinstance(error, UpstreamUnavailable | MalformedAnswer):
        return BrokerError(_known.scrubbed(error.message), scrubbed_json(error.data), code=error.code)
    return error


def _beginning(text: str, limit: int) -> str:
    """The scrubbed text, or, of a long one, so much of its beginning as is surely scrubbed: more than `limit`
    characters, unless secrets took their place.
    """
    looked_at = text[: limit + 2 * REACH]
    found = _known.scrubbed(looked_at)
    return found if len(looked_at) == len(text) else found[: max(0, len(found) - REACH)] + "…"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_ERROR_TEXT else text[: MAX_ERROR_TEXT - 1] + "…"


def _capped(data: Any) -> Any:
    return {"omitted": TOO_LARGE} if data is not None and wire.is_longer(data, MAX_ERROR_DATA) else data
