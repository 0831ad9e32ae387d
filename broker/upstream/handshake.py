"""Which era does an upstream speak, and what does it say of itself?

Probed modern-first. Spec: 2026-07-28 basic/transports/stdio and streamable-http, "Backward Compatibility".

| what answers `server/discover` | then |
|---|---|
| a discovery that names a modern version | modern |
| -32022 that names a modern version of ours | modern, asked again in it |
| nothing, on a pipe, for 5 s | `initialize` is sent too; the first answer decides, -32022 to it means modern |
| anything else | legacy: `initialize` |

On HTTP a status that says nothing of the era (401, 429, 5xx ...) is followed by `initialize` in the same attempt, and
what succeeds is used. Nothing is remembered: the next connection probes again.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import anyio

from broker.core.era import (
    LATEST_LEGACY,
    LATEST_MODERN,
    LEGACY_VERSIONS,
    META_SERVER_INFO,
    MODERN_VERSIONS,
    Version,
    is_modern,
)
from broker.core.shape import is_array, is_object
from broker.errors import (
    UNSUPPORTED_VERSION,
    BrokerError,
    MalformedAnswer,
    UpstreamAnsweredError,
    UpstreamUnavailable,
)
from broker.secrecy import foreign
from broker.upstream.link import Link
from broker.upstream.peer import BROKER_INFO, Peer

PROBE_SILENCE: Final = 5.0
"""Seconds without an answer to the probe before a process is taken for one that ignores unknown requests."""

Declare = Callable[[], Awaitable[Mapping[str, Any]]]
"""The client capabilities that a legacy upstream is told. May wait (for the caller, on the stdio front)."""


class _SpeaksModern(Exception):
    """A legacy handshake was answered with proof that the peer is modern."""


async def agree(
    link: Link,
    *,
    pinned: Version | None,
    is_pipe: bool,
    timeout: float,
    declare: Declare,
    is_legacy: bool = False,
) -> Peer:
    """Find the era, do what it asks for, and set `link.version` and `link.peer`.

    `timeout`: seconds for each request. `is_pipe`: silence is an answer there. `is_legacy`: it is not probed.

    Raises: BrokerError, if neither era works.
    """
    if pinned is not None:
        peer = await _pinned(link, pinned, timeout, declare)
    elif is_legacy:
        peer = await _legacy(link, LATEST_LEGACY, timeout, declare)
    else:
        peer = await _probe(link, is_pipe=is_pipe, timeout=timeout, declare=declare)
    link.version, link.peer = peer.version, peer
    if not is_modern(peer.version):
        await link.notify("notifications/initialized")
    return peer


async def _pinned(link: Link, version: Version, timeout: float, declare: Declare) -> Peer:
    """The version that the configuration names, and no other."""
    if is_modern(version):
        return await _discover(link, version, timeout)
    peer = await _legacy(link, version, timeout, declare)
    if peer.version != version:
        raise UpstreamUnavailable(link.upstream, f"it speaks {peer.version}, not {version}, which `protocol` pins")
    return peer


async def _legacy(link: Link, version: Version, timeout: float, declare: Declare) -> Peer:
    """The legacy handshake and nothing else."""
    try:
        return await _initialize(link, version, timeout, declare)
    except _SpeaksModern:
        raise UpstreamUnavailable(link.upstream, f"it does not speak {version}") from None


async def _probe(link: Link, *, is_pipe: bool, timeout: float, declare: Declare) -> Peer:
    """See the module's table. Both handshakes may be under way: the first that succeeds ends the other."""
    found: list[Peer] = []
    failures: list[BrokerError] = []
    probed = anyio.Event()

    async with anyio.create_task_group() as tasks:

        async def probe() -> None:
            try:
                found.append(await _discover(link, LATEST_MODERN, timeout))
                tasks.cancel_scope.cancel()
            except BrokerError:
                probed.set()

        async def fall_back() -> None:
            with anyio.move_on_after(PROBE_SILENCE if is_pipe else float("inf")):
                await probed.wait()
            try:
                found.append(await _initialize(link, LATEST_LEGACY, timeout, declare))
                tasks.cancel_scope.cancel()
            except _SpeaksModern:
                return  # then the probe is answered too, if late
            except BrokerError as error:
                failures.append(error)

        tasks.start_soon(probe)
        tasks.start_soon(fall_back)
    if found:
        return found[0]
    raise failures[0] if failures else UpstreamUnavailable(link.upstream, "it speaks no version that the broker knows")


async def _discover(link: Link, version: Version, timeout: float) -> Peer:
    """`server/discover`, asked once more if the upstream answers that it knows a modern version of ours."""
    link.version = version
    try:
        result = await link.request("server/discover", {}, timeout=timeout)
    except UpstreamAnsweredError as error:
        other = _mutual(error.data.get("supported") if is_object(error.data) else None)
        if error.code != UNSUPPORTED_VERSION or other is None:
            raise
        link.version = version = other
        result = await link.request("server/discover", {}, timeout=timeout)
    mutual = _mutual(result.get("supportedVersions"))
    if mutual is None:
        raise UpstreamUnavailable(link.upstream, "it names no modern version that the broker knows")
    meta = result.get("_meta")
    return _peer(link, mutual, meta.get(META_SERVER_INFO) if is_object(meta) else None, result)


async def _initialize(link: Link, version: Version, timeout: float, declare: Declare) -> Peer:
    """The legacy handshake, but for its closing notification."""
    capabilities = await declare()
    link.version = version
    params = {"protocolVersion": version, "capabilities": capabilities, "clientInfo": BROKER_INFO}
    try:
        result = await link.request("initialize", params, timeout=timeout)
    except UpstreamAnsweredError as error:
        if error.code == UNSUPPORTED_VERSION:
            raise _SpeaksModern from None
        raise
    agreed = next((known for known in LEGACY_VERSIONS if known == result.get("protocolVersion")), None)
    if agreed is None:
        named = foreign(str(result.get("protocolVersion")), 40)
        raise UpstreamUnavailable(link.upstream, f"it speaks protocol version {named}, which the broker does not know")
    return _peer(link, agreed, result.get("serverInfo"), result)


def _mutual(versions: object) -> Version | None:
    """The latest modern version that both know."""
    named = versions if is_array(versions) else []
    return next((version for version in reversed(MODERN_VERSIONS) if version in named), None)


def _peer(link: Link, version: Version, info: object, result: Mapping[str, Any]) -> Peer:
    capabilities, instructions = result.get("capabilities"), result.get("instructions")
    if not is_object(capabilities):
        raise MalformedAnswer(link.upstream, "no capabilities in its handshake")
    return Peer(
        version,
        info if is_object(info) else {},
        capabilities,
        instructions if isinstance(instructions, str) else None,
    )
