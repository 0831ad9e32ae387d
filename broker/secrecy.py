"""What this process must not say. One place, since a secret of one configuration, key or caller is one for all of it.

Whatever is revealed is kept here (`config/secret.py`), and every text that others have written, or that nobody has
looked at, passes here on its way out: log lines, errors, states of servers, traces.
"""

from typing import Any, Final

from broker.core import wire
from broker.core.redaction import KnownSecrets, in_json
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
MAX_QUOTED: Final = 4096
"""Bytes of an upstream's output that are looked at for the few that are quoted: a secret in them must be whole."""
TOO_LARGE: Final = f"the data of this error is larger than {MAX_ERROR_DATA} bytes"

_known: Final = KnownSecrets()


def keep_secret(text: str) -> None:
    """Say it no more, from now on."""
    _known.learn(text)


def scrubbed(text: str) -> str:
    """`text` without known secrets, and without what looks like one."""
    return _known.scrubbed(text)


def scrubbed_json(value: Any) -> Any:
    """A JSON value likewise."""
    return in_json(value, _known.scrubbed)


def foreign(text: str, limit: int = MAX_FOREIGN_TEXT) -> str:
    """Text of an upstream (a page, a line of stderr, an exception) as it may be quoted: scrubbed, escaped, then cut."""
    return printable(_known.scrubbed(text), limit)


def of_upstream(error: BrokerError) -> BrokerError:
    """An error that has words of an upstream in it, as its caller may read them; any other is the same.

    Code, message and data of an upstream's own error pass, scrubbed and capped. The URLs of -32042 must still work, so
    in those only known secrets are hidden.
    """
    if isinstance(error, UpstreamAnsweredError):
        is_for_use = error.code == URL_ELICITATION_REQUIRED
        data = in_json(error.data, _known.without if is_for_use else _known.scrubbed)
        return UpstreamAnsweredError(_cut(_known.scrubbed(error.message)), _capped(data), code=error.code)
    if isinstance(error, UpstreamUnavailable | MalformedAnswer):
        return BrokerError(_known.scrubbed(error.message), scrubbed_json(error.data), code=error.code)
    return error


def _cut(text: str) -> str:
    return text if len(text) <= MAX_ERROR_TEXT else text[: MAX_ERROR_TEXT - 1] + "…"


def _capped(data: Any) -> Any:
    return data if data is None or len(wire.encode(data)) <= MAX_ERROR_DATA else {"omitted": TOO_LARGE}
