"""How a command ends."""

from typing import Final

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
