"""A handwritten legacy stdio upstream without any SDK, which can misbehave: `python raw.py --fault NAME [N]`.

The tool `ok` always works (as far as the pipe still does); the fault acts on the tool `boom`, or where its name says:
at the start, at the handshake, at the list. The tables START, WRITE, INIT, LIST, BOOM and END below are the whole list.
Standard library only, so that nothing cleans up what a fault wants to send.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

Json = dict[str, Any]
VERSION = "2025-11-25"
DIGITS = 100_000
"""Length of the number of `bigint`: beyond every 64-bit type and beyond Python's own limit for int()."""
LEVELS = 100_000
"""Depth of `deep`: beyond every recursive parser."""
TOOLS: list[Json] = [
    {"name": name, "description": text, "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}}
    for name, text in [("ok", "Works."), ("boom", "Does not.")]
]
TYPED: list[Json] = [
    TOOLS[0],
    TOOLS[1] | {"outputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}},
]
BAD_TOOLS: list[Any] = [
    {"description": "no name", "inputSchema": {"type": "object"}},
    {"name": 7, "inputSchema": {"type": "object"}},
    {"name": "no_schema"},
    {"name": "bad_schema", "inputSchema": "object"},
    "not an object",
    None,
]


class Raw:
    """One connection: where bytes go out, and what is still open."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.fault: str = options.fault[0]
        self.count = int(options.fault[1]) if len(options.fault) > 1 else 1000
        self.pids: str | None = options.pids
        self.waiting: Json = {}
        """`server-requests`: the ids that we asked with and that have no answer yet."""
        self.answers: list[Json] = []
        self.asked_by: Any = None
        self.fits = True
        """`misfit`: whether the last result fitted the schema of its tool."""

    def write(self, data: bytes) -> None:
        WRITE.get(self.fault, write_plain)(data)

    def send(self, message: Any) -> None:
        self.write(json.dumps(message).encode() + b"\n")

    def answer(self, ident: Any, result: Json) -> None:
        self.send({"jsonrpc": "2.0", "id": ident, "result": result})

    def refuse(self, ident: Any, code: int, text: str) -> None:
        self.send({"jsonrpc": "2.0", "id": ident, "error": {"code": code, "message": text}})

    def notify(self, method: str, params: Json | None = None) -> None:
        self.send({"jsonrpc": "2.0", "method": method, **({"params": params} if params is not None else {})})


def write_plain(data: bytes) -> None:
    """All of it, at once: a short write of a pipe is continued."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def text(value: str) -> Json:
    return {"content": [{"type": "text", "text": value}]}


def hang() -> NoReturn:
    while True:
        time.sleep(3600)


# --- at the start --------------------------------------------------------------------------------------------------


def start_exit0(raw: Raw) -> None:
    sys.exit(0)


def start_ignore_term(raw: Raw) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def start_grandchild(raw: Raw) -> None:
    """One that left our session, one that stayed in our group; both outlive us unless somebody ends them."""
    sleeper = [sys.executable, "-c", "import time; time.sleep(1000)"]
    quiet: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    apart = subprocess.Popen(sleeper, start_new_session=True, **quiet)
    beside = subprocess.Popen(sleeper, **quiet)
    if raw.pids is not None:
        partial = Path(raw.pids + ".partial")
        partial.write_text(f"{apart.pid}\n{beside.pid}\n", encoding="ascii")
        partial.replace(raw.pids)


# --- around every line ---------------------------------------------------------------------------------------------


def write_garbage(data: bytes) -> None:
    write_plain(b"Welcome to raw!\n\n[]\n123\n" + data)


def write_bom(data: bytes) -> None:
    """A byte order mark before each line."""
    write_plain(b"\xef\xbb\xbf" + data)


# --- at the handshake ----------------------------------------------------------------------------------------------


def init_hang(raw: Raw, ident: Any) -> None:
    """No answer; we go on reading."""


def init_plain(raw: Raw, ident: Any) -> None:
    raw.answer(
        ident,
        {
            "protocolVersion": VERSION,
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "raw", "version": "1"},
            "instructions": "Call `ok`; never `boom`.",
        },
    )


# --- at the list ---------------------------------------------------------------------------------------------------


def list_endless(raw: Raw, ident: Any, cursor: str | None) -> None:
    """Every page has one new tool and a new cursor; the first has the two real ones."""
    number = int(cursor or 0) + 1
    tools = TOOLS if cursor is None else [{"name": f"page_{number}", "inputSchema": {"type": "object"}}]
    raw.answer(ident, {"tools": tools, "nextCursor": str(number)})


def list_same(raw: Raw, ident: Any, cursor: str | None) -> None:
    raw.answer(ident, {"tools": TOOLS, "nextCursor": "again"})


def list_bad_tool(raw: Raw, ident: Any, cursor: str | None) -> None:
    raw.answer(ident, {"tools": [TOOLS[0], *BAD_TOOLS, TOOLS[1]]})


def list_plain(raw: Raw, ident: Any, cursor: str | None) -> None:
    raw.answer(ident, {"tools": TOOLS})


def list_typed(raw: Raw, ident: Any, cursor: str | None) -> None:
    raw.answer(ident, {"tools": TYPED})


# --- the tool `boom` -----------------------------------------------------------------------------------------------


def boom_plain(raw: Raw, ident: Any, params: Json) -> None:
    raw.answer(ident, text("boom, but politely"))


def boom_misfit(raw: Raw, ident: Any, params: Json) -> None:
    """Every other result does not fit the tool's own schema."""
    raw.fits = not raw.fits
    raw.answer(ident, {**text("n"), "structuredContent": {"n": 1 if raw.fits else "one", "more": []}})


def boom_invalid_utf8(raw: Raw, ident: Any, params: Json) -> None:
    raw.write(with_value(ident, b'"\xff\xfe\xc3\x28"'))


def boom_endless_line(raw: Raw, ident: Any, params: Json) -> None:
    raw.write(b'{"jsonrpc":"2.0","id":' + json.dumps(ident).encode() + b',"result":{"content":[],"x":"')
    while True:
        raw.write(b"a" * 65_536)


def boom_hang(raw: Raw, ident: Any, params: Json) -> None:
    """No answer; `ok` goes on working."""


def boom_nan(raw: Raw, ident: Any, params: Json) -> None:
    raw.write(with_value(ident, b"NaN"))


def boom_surrogate(raw: Raw, ident: Any, params: Json) -> None:
    raw.write(with_value(ident, b'"\\ud800"'))


def boom_bigint(raw: Raw, ident: Any, params: Json) -> None:
    raw.write(with_value(ident, b"7" * DIGITS))


def boom_deep(raw: Raw, ident: Any, params: Json) -> None:
    raw.write(with_value(ident, b"[" * LEVELS + b"]" * LEVELS))


def with_value(ident: Any, value: bytes) -> bytes:
    """A result whose `structuredContent.value` is these very bytes."""
    head = b'{"jsonrpc":"2.0","id":' + json.dumps(ident).encode()
    return head + b',"result":{"content":[],"structuredContent":{"value":' + value + b"}}}\n"


def boom_dup(raw: Raw, ident: Any, params: Json) -> None:
    raw.answer(ident, text("first"))
    raw.answer(ident, text("second"))


def boom_unknown_id(raw: Raw, ident: Any, params: Json) -> None:
    raw.answer(987_654_321, text("for nobody"))
    raw.answer("never-asked", text("for nobody"))
    raw.answer(None, text("for nobody"))
    raw.answer(ident, text("for you"))


def boom_string_id(raw: Raw, ident: Any, params: Json) -> None:
    raw.answer(str(ident), text("a number came back as a string"))


def boom_both(raw: Raw, ident: Any, params: Json) -> None:
    raw.send({"jsonrpc": "2.0", "id": ident, "result": text("yes"), "error": {"code": -32603, "message": "no"}})


def boom_bad_error(raw: Raw, ident: Any, params: Json) -> None:
    raw.send({"jsonrpc": "2.0", "id": ident, "error": "not an object"})


def boom_progress(raw: Raw, ident: Any, params: Json) -> None:
    token = params.get("_meta", {}).get("progressToken")
    for step in range(1, raw.count + 1):
        raw.notify("notifications/progress", {"progressToken": token, "progress": step, "total": raw.count})
    raw.answer(ident, text(f"{raw.count} steps"))


def boom_list_changed(raw: Raw, ident: Any, params: Json) -> None:
    for _ in range(raw.count):
        raw.notify("notifications/tools/list_changed")
    raw.answer(ident, text(f"{raw.count} changes"))


def boom_requests(raw: Raw, ident: Any, params: Json) -> None:
    """Ask N questions, of three kinds in turn; the call is answered when all of them are, with the answers as JSON."""
    message = {"role": "user", "content": {"type": "text", "text": "who?"}}
    schema = {"type": "object", "properties": {"who": {"type": "string"}}}
    kinds: list[tuple[str, Json]] = [
        ("sampling/createMessage", {"messages": [message], "maxTokens": 10}),
        ("elicitation/create", {"message": "who?", "requestedSchema": schema}),
        ("roots/list", {}),
    ]
    raw.asked_by, raw.answers = ident, []
    for number in range(raw.count):
        method, body = kinds[number % 3]
        raw.waiting[f"q{number}"] = method
        raw.send({"jsonrpc": "2.0", "id": f"q{number}", "method": method, "params": body})


def take_answer(raw: Raw, message: Json) -> None:
    method = raw.waiting.pop(message["id"], None)
    if method is None:
        return
    raw.answers.append({"method": method, **{k: message[k] for k in ("result", "error") if k in message}})
    if not raw.waiting:
        raw.answer(raw.asked_by, text(json.dumps(raw.answers)))


def boom_exit(raw: Raw, ident: Any, params: Json) -> None:
    """Half a line, then the end."""
    raw.write(b'{"jsonrpc":"2.0","id":')
    os._exit(1)


def boom_stderr(raw: Raw, ident: Any, params: Json) -> None:
    """N lines of 1 KiB on stderr before the answer: whoever does not read stderr never gets it."""
    for _ in range(raw.count):
        os.write(2, b"e" * 1023 + b"\n")
    raw.answer(ident, text(f"{raw.count} lines"))


def boom_blank_flood(raw: Raw, ident: Any, params: Json) -> None:
    """N times 64 Ki empty lines before the answer."""
    for _ in range(raw.count):
        raw.write(b"\n" * 65_536)
    raw.answer(ident, text("after the flood"))


def boom_empty_flood(raw: Raw, ident: Any, params: Json) -> None:
    """N times 64 Ki bytes of messages that say nothing before the answer."""
    for _ in range(raw.count):
        raw.write(b"{}\n" * 21_845)
    raw.answer(ident, text("after the flood"))


# --- the tables ----------------------------------------------------------------------------------------------------

START: dict[str, Callable[[Raw], None]] = {
    "exit0": start_exit0,
    "ignore-term": start_ignore_term,
    "grandchild": start_grandchild,
}
WRITE: dict[str, Callable[[bytes], None]] = {"garbage": write_garbage, "bom": write_bom}
INIT: dict[str, Callable[[Raw, Any], None]] = {"hang-init": init_hang}
LIST: dict[str, Callable[[Raw, Any, str | None], None]] = {
    "endless-cursor": list_endless,
    "same-cursor": list_same,
    "one-bad-tool": list_bad_tool,
    "misfit": list_typed,
}
BOOM: dict[str, Callable[[Raw, Any, Json], None]] = {
    "invalid-utf8": boom_invalid_utf8,
    "endless-line": boom_endless_line,
    "hang-call": boom_hang,
    "nan": boom_nan,
    "surrogate": boom_surrogate,
    "bigint": boom_bigint,
    "deep": boom_deep,
    "dup-response": boom_dup,
    "unknown-id": boom_unknown_id,
    "string-id": boom_string_id,
    "both-result-and-error": boom_both,
    "bad-error": boom_bad_error,
    "progress-flood": boom_progress,
    "list-changed-storm": boom_list_changed,
    "server-requests": boom_requests,
    "exit-mid-call": boom_exit,
    "stderr-flood": boom_stderr,
    "blank-flood": boom_blank_flood,
    "empty-flood": boom_empty_flood,
    "misfit": boom_misfit,
}
END: dict[str, Callable[[], object]] = {"ignore-term": hang}
AFTER_HANDSHAKE: dict[str, Callable[[], object]] = {"no-read": hang}
FAULTS = list(dict.fromkeys(["none", *START, *WRITE, *INIT, *LIST, *BOOM, *AFTER_HANDSHAKE]))


def handle(raw: Raw, message: Json) -> None:
    method, ident = message.get("method"), message.get("id")
    params = message.get("params") or {}
    if method is None:
        take_answer(raw, message)
    elif method == "initialize":
        INIT.get(raw.fault, init_plain)(raw, ident)
    elif method == "notifications/initialized":
        AFTER_HANDSHAKE.get(raw.fault, lambda: None)()
    elif ident is None or raw.fault in INIT:
        return
    elif method == "ping":
        raw.answer(ident, {})
    elif method == "tools/list":
        LIST.get(raw.fault, list_plain)(raw, ident, params.get("cursor"))
    elif method == "tools/call" and params.get("name") == "ok":
        raw.answer(ident, text("ok " + str((params.get("arguments") or {}).get("text", ""))))
    elif method == "tools/call" and params.get("name") == "boom":
        BOOM.get(raw.fault, boom_plain)(raw, ident, params)
    elif method == "tools/call":
        raw.refuse(ident, -32602, f"Unknown tool: {params.get('name')}")
    else:
        raw.refuse(ident, -32601, "Method not found")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", nargs="+", default=["none"], metavar=("NAME", "N"), help=", ".join(FAULTS))
    parser.add_argument("--pids", help="grandchild: both process ids are written here")
    options = parser.parse_args()
    if options.fault[0] not in FAULTS:
        parser.error(f"unknown fault {options.fault[0]!r}")
    raw = Raw(options)
    START.get(raw.fault, lambda _: None)(raw)
    for line in sys.stdin.buffer:
        if line.strip():
            handle(raw, json.loads(line))
    END.get(raw.fault, lambda: None)()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        main()
