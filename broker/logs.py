"""Where log lines go: stderr, always, since stdout is protocol or a command's result.

Lines for a pipe are plain; those for a terminal are coloured (`cli/terminal.py`). What an upstream chose is part of
many of them, so control characters are escaped whatever the message is (I-40, I-45): one record, one line.
Whoever wrote it may have put a secret in: every message is scrubbed (`secrecy.py`), as is every text of an exception.
"""

import json
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

from broker.errors import InternalError
from broker.secrecy import foreign, scrubbed

LEVELS: Final = ("debug", "info", "warning", "error")
MAX_LINE: Final = 4000
"""Characters of one message: a longer one would bury the others."""
MAX_PLACES: Final = 8
"""Frames of ours that the line of a fault names, the innermost ones."""

_ROOT: Final = Path(__file__).resolve().parent
_request: ContextVar[str] = ContextVar("request", default="")
"""The id of the request that this task works for, where lines are JSON."""
_names_requests = False
"""Whether they are: each request asks."""


def configure(level: str, handler: logging.Handler | None = None, *, as_json: bool = False, worker: int = 0) -> None:
    """Log the broker's records from `level` on to stderr, and of everybody else's no less than warnings.

    `handler`: what takes the lines there instead, if they are not JSON. `worker`: its number,
    where several processes write to stderr; 0: they do not.
    """
    global _names_requests
    _names_requests = as_json
    # A host that closed our stderr must not stop us.
    logging.raiseExceptions = False
    if handler is None or as_json:
        handler = logging.StreamHandler(sys.stderr)
    number = logging.getLevelNamesMapping()[level.upper()]
    handler.setFormatter((_Json if as_json else OneLine)(with_traces=number <= logging.DEBUG, worker=worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger("broker").setLevel(number)


def is_debugging() -> bool:
    """Whether traces are wanted."""
    return logging.getLogger("broker").isEnabledFor(logging.DEBUG)


def begin_request(make_id: Callable[[], str]) -> None:
    """From here on, lines of this task are about one request; costs next to nothing where they do not say which."""
    if _names_requests:
        _request.set(make_id())


def escaped(text: str, limit: int = MAX_LINE) -> str:
    """`text` in one line of printable characters."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode("ascii") for ch in cut)


def fault_line(fault: BaseException, *, with_text: bool = True) -> str:
    """`TypeError: text (relay/router.py:60 > relay/forward.py:80)`: a fault in one line, with the way to it through us.

    Its text is scrubbed and cut; without it, where a fault may quote what it could not read.
    """
    fault = innermost(fault)
    said = f": {foreign(str(fault))}" if with_text and str(fault) else ""
    return f"{type(fault).__name__}{said}{_places(fault)}"


def internal_error(log: logging.Logger, error_id: str, fault: BaseException, what: str = "") -> InternalError:
    """What a caller is told of a fault of ours; the cause goes to `log`, under the same id."""
    log.error("%sinternal error %s", f"{what}: " if what else "", error_id, exc_info=fault)
    return InternalError(error_id)


def fault_lines(fault: BaseException) -> list[str]:
    """The whole trace, for who debugs; scrubbed before it is split, since a secret may have several lines."""
    return [escaped(line) for line in scrubbed("".join(traceback.format_exception(fault))).splitlines()]


def innermost(fault: BaseException) -> BaseException:
    """The one that matters: task groups put what happened in them into groups."""
    while isinstance(fault, BaseExceptionGroup):
        fault = cast("BaseExceptionGroup[BaseException]", fault).exceptions[0]
    return fault


def _places(fault: BaseException) -> str:
    chain = way([(one.filename, one.lineno) for one in traceback.extract_tb(fault.__traceback__)])
    return f" ({chain})" if chain else ""


def way(frames: Sequence[tuple[str, int | None]]) -> str:
    """`relay/router.py:60 > socket.py:3`: of these files and lines, the outermost first, those of ours; and the last of
    all, whoever's it is.
    """
    paths = [(Path(file), line) for file, line in frames]
    ours = [f"{path.relative_to(_ROOT).as_posix()}:{line}" for path, line in paths if path.is_relative_to(_ROOT)]
    last = [f"{path.name}:{line}" for path, line in paths[-1:] if not path.is_relative_to(_ROOT)]
    return " > ".join([*ours[-MAX_PLACES:], *last])


def catch_strays() -> None:
    """What nobody catches is told in the log, in our words: the interpreter would print the text of it as it is."""
    log = logging.getLogger("broker")

    def stray(fault: BaseException | None, where: str) -> None:
        if fault is not None and not isinstance(fault, KeyboardInterrupt | SystemExit):
            log.error("an exception that nobody caught, %s", where, exc_info=fault)

    def in_thread(args: Any) -> None:
        stray(args.exc_value, "in a thread")

    def in_cleaning(args: Any) -> None:
        stray(args.exc_value, "while something was cleared away")

    sys.excepthook = lambda kind, fault, trace: stray(fault, "at the end")
    threading.excepthook = in_thread
    sys.unraisablehook = in_cleaning


class OneLine(logging.Formatter):
    """`12:00:00 WARNING broker.upstream.supervise: text`; with a trace below it only when debugging."""

    def __init__(self, *, with_traces: bool, worker: int = 0) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._with_traces = with_traces
        self.worker = worker
        self.origin = f"worker {worker}: " if worker else ""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment, said = self.formatTime(record, self.datefmt), self.message_of(record)
        return f"{moment} {record.levelname:<7} {self.origin}{record.name}: {said}"

    def message_of(self, record: logging.LogRecord) -> str:
        """The message, and what is known of the fault that it is about."""
        message = escaped(scrubbed(record.getMessage()))
        fault = record.exc_info[1] if record.exc_info else None
        if fault is None:
            return message
        if not self._with_traces:
            return f"{message}: {fault_line(fault)}"
        return "\n".join([message, *(f"  {line}" for line in fault_lines(fault))])


class _Json(OneLine):
    """One object a line: `time`, `level`, `logger`, `message`, and `request` while one is under way; in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, str | int] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message_of(record),
        }
        if self.worker:
            line["worker"] = self.worker
        if request := _request.get():
            line["request"] = request
        return json.dumps(line)
