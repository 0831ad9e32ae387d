"""Only a `Permit` gets here: send the call upstream, and bring back what the caller may read.

The request and the result change only where they must: names, URIs, the `_meta` of one hop, and what differs
between the eras (`core/era.py`). Everything else passes as it came, unknown fields included.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio

from broker.core.catalog import Shelf
from broker.core.era import Version, error_for_caller, result_for_caller
from broker.core.policy import Permit
from broker.core.request import Kind
from broker.core.rewrite import rewrite_error_data, rewrite_result
from broker.errors import BrokerError, UpstreamAnsweredError
from broker.relay.exchange import Exchange
from broker.upstream.supervise import Upstream

_COMPLETE: Final = (None, "complete")


@dataclass(frozen=True, slots=True)
class Call:
    """A permitted request, on its way: `params` already name the entry as its upstream does."""

    permit: Permit
    method: str
    params: Mapping[str, Any]
    version: Version
    """The caller's."""
    patience: float = 0.0
    """Seconds to wait for an upstream that is connecting for the first time."""


async def forward(
    call: Call, upstream: Upstream, shelf: Shelf | None, exchange: Exchange, me: Mapping[str, Any]
) -> dict[str, Any]:
    """The result of `call`, as its caller's era has it. `me` is the broker's own `serverInfo`.

    Raises: BrokerError: the upstream's own error, or that it is unavailable, out of time or malformed.
    """
    link = await upstream.first_link(call.patience)
    publish = shelf.publish if shelf is not None else _as_is
    try:
        result = await link.request(
            call.method,
            call.params,
            timeout=upstream.server.timeout,
            on_notice=exchange.notice,
            wants_progress=exchange.wants_progress,
        )
    except UpstreamAnsweredError as error:
        entry = call.permit.entry
        uri = entry.public if entry.kind is Kind.RESOURCE else None
        data = rewrite_error_data(error.data, publish)
        code, data = error_for_caller(error.code, data, upstream=link.version, caller=call.version, uri=uri)
        raise UpstreamAnsweredError(error.message, data, code=code) from None
    except anyio.get_cancelled_exc_class():
        exchange.abandon()
        raise
    finally:
        exchange.finish()
    if result.get("resultType") not in _COMPLETE:
        raise _unexpected(upstream.key)
    rewrite_result(call.method, result, publish)
    return result_for_caller(call.method, result, upstream=link.version, caller=call.version, server=me)


def _unexpected(server: str) -> BrokerError:
    """No capability was declared to it, so a question is the upstream's fault; it must not pass for a result."""
    return BrokerError(
        f"Server {server!r} asked for input that its caller did not offer", {"upstream": server, "reason": "question"}
    )


def _as_is(uri: str) -> str:
    return uri
