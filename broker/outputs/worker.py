"""The program of the process that looks at what tools answer.

It is confined as guardrails are (`guardrails/limits.py`). One frame at a time is answered:

    {"do": "compile", "id": ..., "cpu": ..., "memory": ...}\\n<schema> -> {"ok": null} or {"unusable": why}
    {"do": "run", "id": ..., "cpu": ..., "memory": ...}\\n<content>    -> {"misfit": where or null} or {"unusable": why}

What ends the process, whatever it is, is one result that was not looked at.
"""

import os
from typing import Any, Final

from broker.core import wire
from broker.guardrails.frames import MAX_FRAME, enter
from broker.guardrails.limits import Confinement
from broker.outputs.dialects import OUT_OF_MEMORY, Checker, Unusable, prepare

_NICE: Final = 19
"""By how much the process is nice: whoever has anything else to do on this machine goes first."""

_READ: Final = wire.Limits(size=MAX_FRAME, depth=wire.FROM_UPSTREAM.depth + 8, nodes=wire.FROM_UPSTREAM.nodes)


class Worker:
    """See the module."""

    def __init__(self, confinement: Confinement) -> None:
        self._confinement = confinement
        self._checkers: dict[str, Checker] = {}

    def answer(self, order: dict[str, Any], body: bytes) -> dict[str, Any]:
        """To one frame."""
        self._confinement.allow(order["cpu"], order["memory"])
        try:
            if order["do"] == "compile":
                self._checkers[order["id"]] = Checker(wire.decode(body, _READ))
                return {"ok": None}
            return {"misfit": self._checkers[order["id"]].misfit(wire.decode(body, _READ))}
        except Unusable as error:
            return {"unusable": str(error)}
        except OUT_OF_MEMORY:
            return {"error": {"kind": "MemoryError"}}  # the end of this process


def main() -> None:
    """The whole life of the process."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    prepare()
    frames, confinement = enter()
    frames.serve(Worker(confinement).answer)
    os._exit(0)
