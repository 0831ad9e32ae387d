"""The program of a guardrail process: takes frames on one pipe, answers on another, and can do nothing else.

It gives up what a process has before it reads its first frame: environment, descriptors, privileges, files, children,
memory beyond a bound. One frame at a time is answered:

    {"do": "compile", "id": ...}\\n<source>                      -> {"ok": null} or {"flaws": [[line, text], ...]}
    {"do": "enter", "id": ..., "cpu": ..., "memory": ...}\\n     -> {"ok": null} or {"error": {...}}
    {"do": "run", "id": ..., "cpu": ..., "memory": ...}\\n<ctx>  -> {"ok": <what it returned>} or {"error": {...}}

A frame is its length in four bytes, big-endian, and that many bytes. Every run begins with fresh globals, so that no
call leaves anything for the next. What ends the process, whatever it is, is a denial for whoever waits.
"""

import gc
import os
import struct
import sys
import unicodedata
import warnings
from types import CodeType
from typing import Any, Final

import orjson

from broker.core import wire
from broker.guardrails import dialect, guest
from broker.guardrails.limits import Confinement

MAX_FRAME: Final = 64 * 1024 * 1024
"""Bytes of one frame from the broker, which keeps its own, smaller bounds."""
MAX_DESCRIPTORS: Final = 1024
"""Numbers of descriptors that are closed at the start: whatever was inherited is below it."""
MAX_SAID: Final = 1024
"""Characters of an exception's text."""
CONTEXT: Final = wire.Limits(size=MAX_FRAME, depth=wire.FROM_UPSTREAM.depth + 8, nodes=wire.FROM_UPSTREAM.nodes + 100)
"""Of what is judged: a judged message, and the few values around it."""

_IMPORTED: Final = (unicodedata,)
"""What the parser imports when it needs it: later no file can be opened."""


class Worker:
    """See the module."""

    def __init__(self, source: int, sink: int, confinement: Confinement) -> None:
        self._source, self._sink = source, sink
        self._confinement = confinement
        self._codes: dict[str, CodeType] = {}

    def serve(self) -> None:
        """Until the broker closes the pipe."""
        self._send({"ok": None})
        while (frame := self._receive()) is not None:
            head, _, body = frame.partition(b"\n")
            self._send(self._answer(orjson.loads(head), body))

    def _answer(self, order: dict[str, Any], body: bytes) -> dict[str, Any]:
        try:
            match order["do"]:
                case "compile":
                    return self._compile(order["id"], body)
                case "enter":
                    self._confinement.allow(order["cpu"], order["memory"])
                    return self._enter(order["id"])
                case _:
                    self._confinement.allow(order["cpu"], order["memory"])
                    return self._run(order["id"], body)
        except BaseException as error:  # a guest may raise what it likes; the answer is small, and nobody's object
            return {"error": _told(error)}

    def _compile(self, key: str, source: bytes) -> dict[str, Any]:
        try:
            code = dialect.translate(source, guest.KNOWN_NAMES, guest.KNOWN_ATTRIBUTES)
        except dialect.NotAccepted as error:
            return {"flaws": [[flaw.line, flaw.message] for flaw in error.flaws]}
        guest.know(code)
        self._codes[key] = code
        return {"ok": None}

    def _enter(self, key: str) -> dict[str, Any]:
        space: dict[str, Any] = {}
        try:
            guest.entered(self._codes[key], space)
            return {"ok": None}
        finally:
            space.clear()

    def _run(self, key: str, body: bytes) -> dict[str, Any]:
        context = wire.decode(body, CONTEXT)
        space: dict[str, Any] = {}
        try:
            said = guest.entered(self._codes[key], space)(context)
            guest.refuse_inexact(said)
            # Encoded here: what cannot be is the guest's error, with its text.
            return {"ok": orjson.Fragment(wire.encode(said))}
        finally:
            space.clear()  # a function and its globals hold each other

    def _receive(self) -> bytes | None:
        head = self._read(4)
        return None if head is None else self._read(struct.unpack(">I", head)[0])

    def _read(self, size: int) -> bytes | None:
        if size > MAX_FRAME:
            return None
        pieces: list[bytes] = []
        while size > 0:
            piece = os.read(self._source, min(size, 1 << 20))
            if not piece:
                return None
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _send(self, answer: dict[str, Any]) -> None:
        data = orjson.dumps(answer)
        data = struct.pack(">I", len(data)) + data
        while data:
            data = data[os.write(self._sink, data) :]


def _told(error: BaseException) -> dict[str, Any]:
    """An exception as plain values: its kind, the guest's line (0 if it has none), and its text, for `test` only."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == dialect.FILENAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        text = str(error)[:MAX_SAID].encode("utf-8", "replace").decode()
    except BaseException:  # out of memory again, most likely
        text = ""
    return {"kind": type(error).__name__, "line": line, "text": text}


def main() -> None:
    """`argv`: the process id of the broker. What is not ours to use is closed before the first frame is read."""
    parent = int(sys.argv[1])
    sys.argv.clear()
    source, sink = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    os.closerange(sink + 1, MAX_DESCRIPTORS)
    sys.stdin = sys.stdout = sys.stderr = None
    warnings.simplefilter("ignore")
    confinement = Confinement.enter(parent)
    gc.freeze()  # what is here now stays, and is not looked at again
    Worker(source, sink, confinement).serve()
    os._exit(0)
