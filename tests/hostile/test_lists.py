"""F-35: lists that are within every bound of bytes and pages, and built to be costly."""

import json
from typing import Any

import pytest

from tests.hostile.conftest import BrokerOf
from tests.hostile.web import says, web
from tests.servers.rawhttp import Out, Request

JSON = {"Content-Type": "application/json"}
PAGES = 20
SHAPES: dict[str, tuple[int, str]] = {
    "few that are full of arrays": (1, ",".join(["[]"] * 30_000)),
    "many with arrays": (4, ",".join(["[]"] * 9_500)),
    "many with objects": (4, ",".join(["{}"] * 9_500)),
    "many with objects that have one member": (4, ",".join(['{"a":7}'] * 6_300)),
}


class Pages:
    """A tool list of several pages, each with as many tools as are wanted, and `ok` on the first."""

    def __init__(self, tools: int, inside: str) -> None:
        self._tools, self._inside = tools, inside
        self.asked = 0

    async def __call__(self, out: Out, request: Request, ident: Any) -> None:
        self.asked += 1
        schema = f'{{"type":"object","allOf":[{self._inside}]}}'
        tools = [f'{{"name":"t{self.asked}-{n}","inputSchema":{schema}}}' for n in range(self._tools)]
        if self.asked == 1:
            tools.insert(0, '{"name":"ok","inputSchema":{"type":"object"}}')
        cursor = "" if self.asked == PAGES else f',"nextCursor":"{self.asked}"'
        body = f'{{"jsonrpc":"2.0","id":{json.dumps(ident)},"result":{{"tools":[{",".join(tools)}]{cursor}}}}}'
        await says("200 OK", JSON, body.encode())(out, request, ident)


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_F35_the_values_of_a_list_are_bounded_and_what_is_beyond_is_said(
    broker_of: BrokerOf, era: str, shape: str
) -> None:
    pages = Pages(*SHAPES[shape])
    async with web(era, tools_list=pages) as bad, broker_of({"bad": {"url": bad.url}}) as run:
        await run.innocent("bad")
        assert pages.asked == PAGES
        shelf = run.broker.generation.catalog.shelves["bad"]
        assert "values" in {item.own: item.reason for item in shelf.dropped}[f"t{PAGES}-0"]
        await run.innocent("bad")
