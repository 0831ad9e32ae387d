"""Every hostile upstream by one name: `python tests/hostile/upstream.py --transport stdio|http|sse --fault NAME [...]`.

`--help` lists the faults of each transport. What stands behind the name is passed on: `--at`, `--era`, `--bytes` and
others of tests/servers/rawhttp.py over HTTP, a number and `--pids` of tests/servers/raw.py on stdio. Faults that one
test alone needs are written there, for puppet.py (a script on stdio) or web.py (answers by hand over HTTP).
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.servers import raw, rawhttp
from tests.servers.rawhttp import Out, Request, announce, requests

ELSEWHERE = "http://203.0.113.1/messages"


async def endpoint(out: Out, where: str) -> None:
    await out.chunk(f"event: endpoint\ndata: {where}\n\n".encode())


async def stay(out: Out) -> None:
    await asyncio.Event().wait()


async def no_endpoint(out: Out) -> None:
    """A stream on which nothing comes."""
    await stay(out)


async def foreign_endpoint(out: Out) -> None:
    """Messages are to be sent to another origin."""
    await endpoint(out, ELSEWHERE)
    await stay(out)


async def closes_at_once(out: Out) -> None:
    await endpoint(out, "/messages")
    await out.raw(b"0\r\n\r\n")


async def never_answers(out: Out) -> None:
    """Whatever is posted is accepted, and nothing comes of it."""
    await endpoint(out, "/messages")
    await stay(out)


async def garbage(out: Out) -> None:
    await endpoint(out, "/messages")
    while True:
        await out.chunk(b"data: nonsense\n\n: comment\n\ndata: [1]\n\ndata: \xff\xfe\n\n")
        await asyncio.sleep(0.05)


async def endless_event(out: Out) -> None:
    await endpoint(out, "/messages")
    await out.chunk(b"data: ")
    while True:
        await out.chunk(rawhttp.BLOCK)


async def blank_flood(out: Out) -> None:
    await endpoint(out, "/messages")
    while True:
        await out.chunk(b"\n" * 2**20)


async def empty_flood(out: Out) -> None:
    """Messages that say nothing."""
    await endpoint(out, "/messages")
    while True:
        await out.chunk(b"data:{}\n\n" * 2**17)


class Typed(raw.Raw):
    """tests/servers/raw.py with the fault `misfit`, whose lines are events of a stream."""

    def __init__(self) -> None:
        super().__init__(argparse.Namespace(fault=["misfit"], pids=None))
        self.events: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.events.append(b"data: " + data + b"\n")


async def misfit(out: Out) -> None:
    """Every other result of `boom` does not fit the tool's own schema."""
    await endpoint(out, "/messages")
    typed = Typed()
    while True:
        raw.handle(typed, json.loads(await POSTED.get()))
        while typed.events:
            await out.chunk(typed.events.pop(0))


POSTED: asyncio.Queue[bytes] = asyncio.Queue()
"""What came beside the stream."""
SSE: dict[str, Callable[[Out], Awaitable[None]]] = {
    "no-endpoint": no_endpoint,
    "foreign-endpoint": foreign_endpoint,
    "closes-at-once": closes_at_once,
    "never-answers": never_answers,
    "garbage": garbage,
    "endless-event": endless_event,
    "blank-flood": blank_flood,
    "empty-flood": empty_flood,
    "misfit": misfit,
}
FAULTS: dict[str, list[str]] = {"stdio": raw.FAULTS, "http": list(rawhttp.FAULTS), "sse": list(SSE)}


async def serve_sse(fault: str, port_file: str | None) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            async for request in requests(reader):
                await answer(Out(writer), request)
        writer.close()

    async def answer(out: Out, request: Request) -> None:
        if request.method != "GET":
            POSTED.put_nowait(request.body)
            return await out.whole(202, b"")
        await out.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        await SSE[fault](out)
        return None

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    announce(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/sse", port_file)
    await asyncio.Event().wait()


def main() -> None:
    listed = "\n".join(f"{name}: {', '.join(faults)}" for name, faults in FAULTS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=listed, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--transport", choices=list(FAULTS), required=True)
    parser.add_argument("--fault", default="none")
    parser.add_argument("--port-file")
    options, rest = parser.parse_known_args()
    if options.fault not in FAULTS[options.transport]:
        parser.error(f"no fault of {options.transport}: {options.fault!r}\n{listed}")
    if options.transport == "sse":
        asyncio.run(serve_sse(options.fault, options.port_file))
        return
    port_file = ["--port-file", options.port_file] if options.port_file else []
    sys.argv[1:] = ["--fault", options.fault, *rest, *port_file]
    if options.transport == "http":
        asyncio.run(rawhttp.main(rawhttp.parse()))
    else:
        raw.main()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, BrokenPipeError):
        main()
