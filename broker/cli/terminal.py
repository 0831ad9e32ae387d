"""Log lines on a terminal: coloured, and above a progress bar."""

import logging
from typing import Final

from rich.console import Console
from rich.text import Text

from broker.logs import OneLine, is_debugging

_STYLES: Final = {"DEBUG": "dim", "INFO": "green", "WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold red"}


class Terminal(logging.Handler):
    """Coloured lines; the name of the module only when debugging."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record."""
        try:
            self._console.print(self._line(record), soft_wrap=True)
        except Exception:
            self.handleError(record)

    def _line(self, record: logging.LogRecord) -> Text:
        formatter = self.formatter
        assert isinstance(formatter, OneLine)
        name = f"{record.name}: " if is_debugging() else ""
        return Text.assemble(
            (formatter.formatTime(record, formatter.datefmt), "dim"),
            " ",
            (f"{record.levelname:<7}", _STYLES.get(record.levelname, "")),
            " ",
            (f"{formatter.origin}{name}", "dim"),
            formatter.message_of(record),
        )
