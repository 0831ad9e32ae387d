"""The program of a guardrail process: takes frames on one pipe, answers on another, and can do nothing else.

It gives up what a process has before it reads its first frame: environment, descriptors, privileges, files, children,
memory beyond a bound. One frame at a time is answered:

    {"do": "compile", "id": ...}\\n<source>                      -> {"ok": null} or {"flaws": [[line, text], ...]}
    {"do": "enter", "id": ..., "cpu": ..., "memory": ...}\\n     -> {"ok": null} or {"error": {...}}
    {"do": "run", "id": ..., "cpu": ..., "memory": ...}\\n<ctx>  -> {"ok": <what it returned>} or {"error": {...}}

Frames are as `frames.py` says. Every run begins with fresh globals, so that no call leaves anything for the next. What
ends the process, whatever it is, is a denial for whoever waits.
"""

import os
import unicodedata
from types import CodeType
from typing import Any, Final

import orjson

from broker.core import wire
from broker.guardrails import dialect, guest
from broker.guardrails.frames import MAX_FRAME, enter
from broker.guardrails.limits import Confinement

MAX_SAID: Final = 1024
"""Characters of an exception's text."""
CONTEXT: Final = wire.Limits(size=MAX_FRAME, depth=wire.FROM_UPSTREAM.depth + 8, nodes=wire.FROM_UPSTREAM.nodes + 100)
"""Of what is judged: a judged message, and the few values around it."""

_IMPORTED: Final = (unicodedata,)
"""What the parser imports when it needs it: later no file can be opened."""


class Worker:
    """See the module."""

    def __init__(self, confinement: Confinement) -> None:
        self._confinement = confinement
        self._codes: dict[str, CodeType] = {}

    def answer(self, order: dict[str, Any], body: bytes) -> dict[str, Any]:
        """To one frame."""
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
    """The whole life of the process."""
    frames, confinement = enter()
    frames.serve(Worker(confinement).answer)
    os._exit(0)
