"""Values that must not be seen, and the references (`${env:X}`) that bring them in from outside the file."""

import hmac
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NoReturn

from broker.config.problem import Fault
from broker.core.redaction import MASK
from broker.secrecy import keep_secret

MAX_SECRET_FILE: int = 64 * 1024
"""Bytes. A key or a certificate fits; without a bound a mistaken path would be read whole into a header."""

KNOWN_FORMS: tuple[str, ...] = ("${env:NAME}", "${env:NAME:-default}", "${file:/path}")

HARMLESS: frozenset[str] = frozenset(
    {"HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "PWD", "SHELL", "TERM", "TMPDIR", "TZ", "USER", "USERNAME"}
)
"""Variables whose values stand in half of all messages and are no secrets: those are not searched for in texts."""

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Secret:
    """A text that only `reveal()` shows: `str`, `repr`, `format`, pydantic dumps and tracebacks with locals mask it.

    Equal to another `Secret` of the same text (in constant time), never to a `str`. Not hashable: a hash of a secret
    is a hint about it. Not picklable: a pickle would hold the plain text. Immutable, so a copy is the same object.

    `parts`: what of the text is secret; None: all of it.
    """

    __slots__ = ("_is_kept", "_parts", "_text")
    __hash__: ClassVar[None]  # pyright: ignore[reportIncompatibleMethodOverride]

    def __init__(self, text: str, parts: Sequence[str] | None = None) -> None:
        self._text = text
        self._parts = (text,) if parts is None else tuple(parts)
        self._is_kept = False

    def reveal(self) -> str:
        """The plain text. Call it where the text leaves the broker (a header, an environment), nowhere else.

        From then on it can come back in other people's words, so it is looked for in all that is logged, and in errors.
        """
        if not self._is_kept:
            self._is_kept = True
            for part in self._parts:
                keep_secret(part)
        return self._text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._bytes(), other._bytes())

    def _bytes(self) -> bytes:
        return self._text.encode("utf-8", "surrogatepass")

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")


def reveal(value: str | Secret) -> str:
    """The plain text of a configured value, whether a reference brought it in or not."""
    return value.reveal() if isinstance(value, Secret) else value


@dataclass(frozen=True, slots=True)
class Sources:
    """Where references lead. environ: the environment to look in (never `os.environ` behind the caller's back).

    forms: the spellings an error offers; `adapt` adds those of other people's files.
    """

    environ: Mapping[str, str]
    forms: tuple[str, ...] = KNOWN_FORMS
    files: set[str] = field(default_factory=set[str], compare=False)
    """Those that references led to, whether they could be read or not."""


class BadReferenceError(Exception):
    """References of one text that lead nowhere. faults: one for each, at least one; none quotes a value."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(fault.message for fault in faults))


def expand(text: str, sources: Sources) -> str | Secret:
    """Replaces the references in `text`, once: what a reference brings in is not expanded again.

    `${env:X}` (must be set), `${env:X:-default}` (if unset or empty), `${file:/path}` (UTF-8, one trailing newline
    stripped, `~/` allowed); `$${` is a literal `${`. A text that had a reference becomes a `Secret` as a whole.

    Raises: BadReferenceError, with every reference that is unknown, unfinished, or leads to nothing.
    """
    faults: list[Fault] = []
    parts: list[str] = []

    def resolve(body: str) -> str:
        found = _resolve(body, sources)
        if body.removeprefix("env:").partition(":-")[0] not in HARMLESS:
            parts.append(found)
        return found

    result = substitute(text, resolve, faults)
    if faults:
        raise BadReferenceError(faults)
    return Secret(result, parts) if has_reference(text) else result


def has_reference(text: str) -> bool:
    """Whether there is a `${` in it that is not escaped."""
    return any(match.group() != "$${" for match in _REFERENCE.finditer(text))


def substitute(text: str, resolve: Callable[[str], str], faults: list[Fault], escape: str = "${") -> str:
    """Calls `resolve` with the inside of each `${...}`; collects the faults. escape: what a `$${` becomes."""

    def replace(match: re.Match[str]) -> str:
        if match.group() == "$${":
            return escape
        try:
            return resolve(_body(match))
        except Fault as fault:
            faults.append(fault)
            return ""

    return _REFERENCE.sub(replace, text)


def _body(match: re.Match[str]) -> str:
    if "${" in match[1]:
        raise Fault("a reference stands inside another reference", "Only one level is expanded.")
    if not match[2]:
        raise Fault("a ${ without its }", "Close it, or write $${ for a literal ${.")
    return match[1]


def _resolve(body: str, sources: Sources) -> str:
    kind, colon, rest = body.partition(":")
    if kind == "env" and colon:
        return _from_env(rest, sources.environ)
    if kind == "file" and colon:
        return _from_file(rest, sources)
    # The body is not quoted: a password in braces would be printed.
    forms = ", ".join(sources.forms)
    raise Fault("unknown kind of reference", f"Known are {forms}; write $${{ for a literal ${{.")


def _from_env(rest: str, environ: Mapping[str, str]) -> str:
    name, has_default, default = rest.partition(":-")
    if not _ENV_NAME.fullmatch(name):
        raise Fault("${env:...} without a valid name of an environment variable", "Write ${env:NAME}.")
    value = environ.get(name)
    if has_default:
        return value or default
    if value is None:
        raise Fault(f"the environment variable {name} is not set", f"Set it, or write ${{env:{name}:-default}}.")
    return value


def _from_file(rest: str, sources: Sources) -> str:
    path = rest
    if rest.startswith("~/"):
        path = (sources.environ.get("HOME") or os.path.expanduser("~")) + rest[1:]
    if not os.path.isabs(path):
        raise Fault("${file:...} needs an absolute path", "Write ${file:/path} or ${file:~/path}.")
    sources.files.add(path)
    try:
        raw = _read_regular(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a valid path"
        raise Fault(f"the file of a ${{file:...}} reference cannot be read ({reason})") from None
    if len(raw) > MAX_SECRET_FILE:
        raise Fault(f"the file of a ${{file:...}} reference is larger than {MAX_SECRET_FILE} bytes")
    text = _decoded(raw)
    if text is None:
        raise Fault("the file of a ${file:...} reference is not UTF-8 text")
    return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")


def _decoded(raw: bytes) -> str | None:
    # Not raised from here: a UnicodeDecodeError carries the bytes, and stays reachable as an error's context.
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _read_regular(path: str) -> bytes:
    # Non-blocking, since a FIFO without a writer would otherwise hold up the start for ever.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(0, "not a regular file")
        return file.read(MAX_SECRET_FILE + 1)
