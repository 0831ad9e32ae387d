"""An ordinary application behind our own server."""

from collections.abc import AsyncGenerator

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from broker.downstream.asgi import MAX_BODY, serve_asgi
from broker.downstream.web import BodyRefused, Http
from tests.downstream.test_connection import Site, site

cancelled = anyio.Event()


async def tell(request: Request) -> Response:
    body = (await request.body()).decode()
    client = request.client
    return JSONResponse(
        {
            "path": request.url.path,
            "query": dict(request.query_params),
            "x": request.headers.get("x"),
            "body": body,
            "peer": client.host if client else None,
        },
        201,
    )


async def parts(request: Request) -> Response:
    async def several() -> AsyncGenerator[str, None]:
        yield "one"
        yield "two"

    return StreamingResponse(several())


async def endless(request: Request) -> Response:
    async def several() -> AsyncGenerator[str, None]:
        try:
            while True:
                yield "more"
                await anyio.sleep(0.01)
        finally:
            cancelled.set()

    return StreamingResponse(several())


async def away(request: Request) -> Response:
    return RedirectResponse("/elsewhere")


APPLICATION = Starlette(
    routes=[
        Route("/tell/{it}", tell, methods=["GET", "POST"]),
        Route("/parts", parts),
        Route("/endless", endless),
        Route("/away", away),
    ]
)


async def serve(http: Http) -> None:
    try:
        await serve_asgi(APPLICATION, http)
    except BodyRefused as refused:
        await http.respond(refused.status)


@pytest.fixture
async def served() -> AsyncGenerator[Site, None]:
    async with site(serve) as found:
        yield found


async def test_a_request_comes_as_it_was_sent(served: Site) -> None:
    reply = await served.client.raw(
        served.client.request("POST", "/tell/gr%C3%BC%C3%9Fe?a=b%20c", b"hello", [("X", "y")])
    )
    assert reply.status == 201 and reply.header("content-length") == str(len(reply.body))
    assert reply.json == {
        "path": "/tell/gr\u00fc\u00dfe",
        "query": {"a": "b c"},
        "x": "y",
        "body": "hello",
        "peer": "127.0.0.1",
    }


async def test_a_connection_serves_one_request_after_the_other(served: Site) -> None:
    async with served.client.connection() as connection:
        for path, status in [("/parts", 200), ("/tell/x", 201), ("/nothing", 404), ("/away", 307), ("/parts", 200)]:
            await connection.send(served.client.request("GET", path))
            reply = await connection.reply()
            assert reply.status == status
            assert path != "/parts" or reply.body == b"onetwo"


async def test_HEAD_is_a_head(served: Site) -> None:
    async with served.client.connection() as connection:
        await connection.send(served.client.request("HEAD", "/tell/x") + served.client.request("GET", "/tell/x"))
        assert (await connection.head()).status == 201
        assert (await connection.reply()).status == 201


async def test_a_body_is_bounded(served: Site) -> None:
    reply = await served.client.raw(served.client.request("POST", "/tell/x", b"x" * (MAX_BODY + 1)))
    assert (reply.status, reply.header("connection")) == (413, "close")


async def test_a_stream_ends_when_its_caller_goes(served: Site) -> None:
    connection = await served.client.connect()
    await connection.send(served.client.request("GET", "/endless"))
    await connection.head()
    connection.reset()
    with anyio.fail_after(10):
        await cancelled.wait()
