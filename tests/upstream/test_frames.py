"""SP-07: "The client MUST NOT write anything to the server's stdin that is not a valid MCP message", one on a line."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.core import wire
from tests.hostile.conftest import BrokerOf
from tests.hostile.harness import command
from tests.peers import ROOT

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_SP07_no_message_has_a_line_break_in_it(value: Any) -> None:
    frame = wire.encode({"jsonrpc": "2.0", "method": "m", "params": {"v": value}})
    assert not {b"\n", b"\r"} & {bytes([one]) for one in frame}
    assert json.loads(frame)["params"]["v"] == value


BREAKS = ["a\nb", "a\r\nb", "\u2028\u2029\x85", '\\n"\\', '{"jsonrpc": "2.0"}\n{"jsonrpc": "2.0"}', "\x00\x1b[2J"]


async def test_SP07_every_line_on_the_stdin_of_a_server_is_one_message(broker_of: BrokerOf, tmp_path: Path) -> None:
    """What a child really gets, from its first byte to its last."""
    seen = tmp_path / "stdin"
    server = shlex.join([sys.executable, "-S", str(ROOT / "tests/servers/raw.py")])
    tapped = command(["/bin/sh", "-c", f"tee {shlex.quote(str(seen))} | {server}"])
    async with broker_of({"tapped": tapped}) as run:
        await run.ready("tapped")
        for text in BREAKS:
            await run.call("tapped__ok", text=text, **{text: [text]})
    written = seen.read_bytes()
    assert written.endswith(b"\n") and b"\r" not in written
    messages = [json.loads(line) for line in written.removesuffix(b"\n").split(b"\n")]
    assert all(one["jsonrpc"] == "2.0" and ("method" in one or "id" in one) for one in messages)
    calls = [one["params"]["arguments"]["text"] for one in messages if one.get("method") == "tools/call"]
    assert calls == BREAKS
