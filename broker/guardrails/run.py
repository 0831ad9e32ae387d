"""One way to load a guardrail, and one way to run it: at start, in `check`, in `test`, in each call (I-06)."""

from collections.abc import Mapping, Sequence
from typing import Any

from broker.core import wire
from broker.guardrails.pool import Pool
from broker.guardrails.process import Broke
from broker.guardrails.source import Flaw, Source
from broker.guardrails.verdict import Fault, Verdict, read_error, read_flaws, read_verdict


async def load(pool: Pool, source: Source) -> Sequence[Flaw]:
    """Everything that is wrong with a source: as a text, and when its module runs. Nothing: it can be used."""
    answer = await pool.compile(source)
    if isinstance(answer, Broke):
        return [Flaw(1, f"it could not be loaded: {answer.why}")]
    if set(answer) == {"error"}:
        fault = read_error(answer["error"])
        return [Flaw(fault.line or 1, f"its module fails: {_told(fault)}")]
    flaws = read_flaws(answer)
    return [Flaw(1, "it could not be loaded: its process answered nonsense")] if flaws is None else flaws


async def judge(pool: Pool, source: Source, context: Mapping[str, Any], member: str) -> Verdict:
    """What a guardrail says to `context`, of which `member` is the part that it may rewrite. Never raises."""
    try:
        body = wire.encode(context)
    except wire.Malformed:
        return Fault("what there is to judge is not JSON")
    answer = await pool.run(source, body)
    return Fault(answer.why) if isinstance(answer, Broke) else read_verdict(answer, member)


def _told(fault: Fault) -> str:
    return f"{fault.why}: {fault.detail}" if fault.detail else fault.why
