"""JSON with comments and trailing commas -> Document.

Our own small reader, because the standard one knows no lines, and a YAML reader refuses JSON that is valid (a tab
after a colon, surrogate pairs).
"""

import json
import re
from bisect import bisect_right
from typing import NoReturn

from broker.config.document import MAX_DEPTH, MAX_NODES, Data, Document, Finding, Path, UnreadableError

_BLANK = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*[\s\S]*?\*/)*")
_STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"')
_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]{0,17}))(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?(?![0-9.eE])")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_WORDS: dict[str, Data] = {"true": True, "false": False, "null": None}
_WORD = re.compile(r"true|false|null")


def read_json(text: str) -> Document:
    """Raises: UnreadableError, if it is not JSON (comments and trailing commas aside) or passes a bound."""
    reader = _Reader(text)
    return Document(reader.read(), reader.lines, is_json=True, findings=tuple(reader.findings))


class _Reader:
    """Recursive descent, bounded by MAX_DEPTH."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self.findings: list[Finding] = []
        self._text = text
        self._at = 0
        self._nodes = 0
        self._breaks = [match.start() for match in re.finditer("\n", text)]

    def read(self) -> Data:
        if self._peek() == "":
            raise UnreadableError("the file is empty", 'Start with {"mcpServers": {}}.')
        data = self._value(())
        if self._peek():
            self._fail("there is something after the end of the data")
        return data

    def _value(self, path: Path) -> Data:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._fail(f"more than {MAX_NODES} values")
        if len(path) > MAX_DEPTH:
            self._fail(f"nested deeper than {MAX_DEPTH} levels")
        match self._peek():
            case "{":
                return self._object(path)
            case "[":
                return self._array(path)
            case '"':
                return self._string()
            case _:
                return self._word_or_number()

    def _object(self, path: Path) -> Data:
        result: dict[str, Data] = {}
        self._at += 1
        while self._peek() != "}":
            if self._peek() != '"':
                self._fail("expected a key in double quotes")
            line = self._line()
            key = self._string()
            here = (*path, key)
            if self._peek() != ":":
                self._fail("expected : after a key")
            self._at += 1
            if key in result:
                self._skip_twin(here, line)
            else:
                self.lines[here] = line
                result[key] = self._value(here)
            self._comma("}")
        self._at += 1
        return result

    def _skip_twin(self, path: Path, line: int) -> None:
        lines, self.lines = self.lines, {}
        self._value(path)
        self.lines = lines
        self.findings.append(
            Finding(path, f"duplicate key, first used in line {lines[path]}", "Remove one of them.", line)
        )

    def _array(self, path: Path) -> Data:
        result: list[Data] = []
        self._at += 1
        while self._peek() != "]":
            here = (*path, len(result))
            self.lines[here] = self._line()
            result.append(self._value(here))
            self._comma("]")
        self._at += 1
        return result

    def _comma(self, closing: str) -> None:
        following = self._peek()
        if following == ",":
            self._at += 1
        elif following != closing:
            self._fail(f"expected , or {closing}")

    def _string(self) -> str:
        match = _STRING.match(self._text, self._at)
        if match is None:
            self._fail("a text that does not end, or holds a control character")
        # Decoded apart from the raise: a JSONDecodeError carries the text, and would stay reachable as a context.
        value = _decoded(match.group())
        if value is None or _SURROGATE.search(value):
            self._fail("a text with an escape that means no character")
        self._at = match.end()
        return value

    def _word_or_number(self) -> Data:
        if match := _WORD.match(self._text, self._at):
            self._at = match.end()
            return _WORDS[match.group()]
        if match := _NUMBER.match(self._text, self._at):
            self._at = match.end()
            whole = match[2] is None and match[3] is None
            return int(match.group()) if whole else float(match.group())
        self._fail("expected a value")

    def _peek(self) -> str:
        """The next character that is not blank or comment, "" at the end."""
        match = _BLANK.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at : self._at + 1]

    def _line(self) -> int:
        return bisect_right(self._breaks, self._at - 1) + 1

    def _fail(self, message: str) -> NoReturn:
        raise UnreadableError(f"JSON syntax: {message}", line=self._line())


def _decoded(token: str) -> str | None:
    try:
        return json.loads(token)
    except ValueError:
        return None
