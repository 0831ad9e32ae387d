"""How a command ends."""

import logging
import os
import sys
from collections.abc import Callable
from typing import Final, cast

OK: Final = 0
FAILED: Final = 1
"""It did not work: a call failed, a server did not answer, the port is in use."""
BAD_INPUT: Final = 2
"""The configuration or the command line is wrong; nothing was started."""
INTERRUPTED: Final = 130

EPILOG: Final = (
    "Exit codes: 0 it worked; 1 it did not (a call failed, a server did not answer, the port is in use); "
    "2 the configuration or the command line is wrong, nothing was started; 130 interrupted."
)


class Stop(Exception):
    """Ends a command: `message` is for stderr (nothing, if empty), `code` for the shell."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def told(command: Callable[[], None]) -> None:
    """Run it. Whatever goes wrong is one line on stderr and an exit code."""
    try:
        command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as fault:
        sys.exit(_told(_cause(fault)))


def _cause(fault: BaseException) -> BaseException:
    """The one that matters: task groups put what happened in them into groups."""
    if not isinstance(fault, BaseExceptionGroup):
        return fault
    causes = [_cause(one) for one in cast(BaseExceptionGroup[BaseException], fault).exceptions]
    return next((cause for cause in causes if isinstance(cause, Stop)), causes[0])


def _told(fault: BaseException) -> int:
    """Say it, and give the exit code."""
    from broker.config import ConfigError
    from broker.logs import fault_line, fault_lines
    from broker.secrecy import scrubbed

    if isinstance(fault, Stop):
        if fault.message:
            print(scrubbed(fault.message), file=sys.stderr)
        return fault.code
    if isinstance(fault, ConfigError):  # of a guardrail, which only its process can judge
        print(scrubbed(f"{fault}\nnothing was started"), file=sys.stderr)
        return BAD_INPUT
    if isinstance(fault, BrokenPipeError):
        # Whoever read us (`head`) has enough; the interpreter must not complain of it when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if isinstance(fault, KeyboardInterrupt):
        return INTERRUPTED
    if logging.getLogger("broker").isEnabledFor(logging.DEBUG):
        print("\n".join(fault_lines(fault)), file=sys.stderr)
    said = fault_line(fault).encode("unicode_escape").decode("ascii")
    print(f"mcp-broker: a fault of the broker: {said}", file=sys.stderr)
    return FAILED
