"""How a question of an upstream reaches the one caller that owns the call, and nobody else.

A front gives each request its channel: a legacy caller is asked on the stream of its call; a modern caller cannot be
asked, so its call is parked (`relay/parking.py`) and it gets the question as a result. `NoBackChannel` is the absence
of both.
"""

from typing import Any, Protocol

from broker.core.questions import Question
from broker.errors import CannotAsk


class BackChannel(Protocol):
    """Asks one caller."""

    async def ask(self, question: Question) -> dict[str, Any]:
        """The caller's result, as it came.

        Raises: BrokerError: the caller's own error, or that it cannot be asked.
        """
        ...


class NoBackChannel:
    """For callers that no question can reach."""

    async def ask(self, question: Question) -> dict[str, Any]:
        """See `BackChannel`."""
        raise CannotAsk(f"Method not found: nobody can be asked {question.method}")
