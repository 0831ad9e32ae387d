"""How the program of a confined process takes orders and answers them, and what it closes before it takes the first.

A frame is its length in four bytes, big-endian, and that many bytes: an order is a line of JSON, with what it is about
behind it; an answer is JSON. One at a time.
"""

import gc
import os
import struct
import sys
import warnings
from collections.abc import Callable
from typing import Any, Final

import orjson

from broker.guardrails.limits import Confinement

MAX_FRAME: Final = 64 * 1024 * 1024
"""Bytes of one frame from the broker, which keeps its own, smaller bounds."""
MAX_DESCRIPTORS: Final = 1024
"""Numbers of descriptors that are closed at the start: whatever was inherited is below it."""


class Frames:
    """The two pipes of a confined process."""

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink = source, sink

    def serve(self, answer: Callable[[dict[str, Any], bytes], dict[str, Any]]) -> None:
        """Until the broker closes the pipe. `answer`: what to say to an order and what stands behind it."""
        self._send({"ok": None})
        while (frame := self._receive()) is not None:
            head, _, body = frame.partition(b"\n")
            self._send(answer(orjson.loads(head), body))

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


def enter() -> tuple[Frames, Confinement]:
    """From now on this process has two pipes and its memory, and nothing else. `argv`: the process id of the broker.

    What is not ours to use is closed before the first frame is read; what is to be imported is there by now.
    """
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
    return Frames(source, sink), confinement
