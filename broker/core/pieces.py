"""A long JSON text, read and written in pieces, so that others have their turn between two of them.

Every piece is a text of its own for the one parser of `core/strict.py`. A text is cut before a comma, wherever that
stands: the piece that follows begins inside of arrays and objects that are open there, so these are opened in front of
it once more, each with one member that stands for all that came before, and what is read of them is added to what was
read before. What is open at the end of a piece is closed behind it. So each piece is valid if and only if the whole is.

A string that is longer than a piece is read in slices, and so is one written.
"""

import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias, TypeVar

import orjson

from broker.core.strict import Limits, Malformed, blanked, read, refuse_digits, shape_of
from broker.core.weight import weight

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]
"""What comes to a value in steps."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done in one step; each is some 8 ms at the worst, so that a machine may be slow."""

    most: int = 512 * 1024
    """Bytes of a text that are read at once, where it is made of few values."""
    least: int = 64 * 1024
    """Where it is made of many."""
    many: int = 16_384
    """Values of `most` bytes; with more of them a piece is smaller."""


SIZES: Final = Sizes()
_GOES_ON: Final = [("\0" * n, b'"%b"' % (b"\\u0000" * n)) for n in range(1, 9)]
"""Keys of the member that stands for what came before, each with the one spelling that it can have: of a piece that has
such a string itself, the next is taken."""
_CLOSERS: Final = bytes.maketrans(b"[{", b"]}")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_AT_ONCE: Final = 512
"""Members of an array or an object that are written at once, if they are light together."""
_BLANK: Final = b" \t\n\r"
_OTHER: Final = 64
"""Bytes between two commas that are neither brackets, colons nor digits, nor in a string."""
_KEY_ENDS: Final = re.compile(rb"[ \t\n\r]*:")
_HIGH: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")
"""The first half of a character of two escapes."""


def reading(data: bytes, limits: Limits, sizes: Sizes = SIZES) -> Steps[Any]:
    """The value of a text. Raises: Malformed."""
    return (yield from _Reading(data, limits, sizes).run())


class _Reading:
    """One text, as far as it was read."""

    def __init__(self, data: bytes, limits: Limits, sizes: Sizes) -> None:
        self._data = data
        self._limits = limits
        self._sizes = sizes
        self._at = 0
        """Where the next piece begins."""
        self._before = b""
        """What of that piece was passed already, less its blanks."""
        self._size = sizes.most
        self._is_longer = False
        """Whether the piece was made longer, since it could not be cut: then it is not made shorter again."""
        self._values = 0
        self._open = b""
        """The brackets that are open where the next piece begins."""
        self._path: list[Any] = []
        """What was read of these arrays and objects."""
        self._root: list[Any] = []
        """The value itself, once it has begun."""

    def run(self) -> Steps[Any]:
        """See `reading`."""
        while self._at < len(self._data):
            yield from self._step()
            yield
        if self._open or not self._root:
            raise Malformed("not JSON")
        return self._root[0]

    def _step(self) -> Steps[None]:
        """Read the next piece, or find out that it must be longer, or shorter."""
        text = self._before + self._data[self._at : self._at + self._size]
        is_last = self._at + self._size >= len(self._data)
        parts = blanked(text).split(b'"', self._most_quotes())
        outside = b"".join(parts[::2])
        in_string = len(parts) % 2 == 0
        if self._size > self._sizes.least and not self._is_longer and self._is_dense(parts, outside):
            self._size = max(self._sizes.least, self._size // 8)
        elif is_last and not in_string:
            self._take(text, outside)
            self._pass(len(text))
        elif in_string and len(parts[-1]) >= self._size // 2:
            yield from self._long_string(text[: -1 - len(parts[-1])], outside)
        elif (comma := self._last_comma(parts)) is not None:
            index, at = comma
            cut = sum(map(len, parts[:index])) + index + at
            if text[:cut].rstrip(_BLANK).endswith((b"[", b"{")):  # as a piece it would be an empty one, and valid
                raise Malformed("not JSON")
            self._take(text[:cut], b"".join([*parts[:index:2], parts[index][:at]]))
            self._pass(cut)
            self._size = min(self._sizes.most, self._size * 2)
        else:
            self._refuse_endless(len(parts), outside)
            self._pass_blanks(text, is_last=is_last, in_string=in_string)

    def _most_quotes(self) -> int:
        """No more are split at, before they are found to be too many: all that a piece can have which is not dense,
        or was not and is longer by `least` bytes now.
        """
        return 2 * self._sizes.least + len(self._before) + 2 * self._limits.depth + 8

    def _pass(self, count: int) -> None:
        """So much of the text that was looked at is read."""
        self._at += count - len(self._before)
        self._before, self._is_longer = b"", False

    def _last_comma(self, parts: list[bytes]) -> tuple[int, int] | None:
        """Where a text can be cut: before its last comma outside of strings, but the one that it begins with."""
        last = (len(parts) - 1) // 2 * 2
        # Between two commas are two strings and the keys of what begins there: with more it is no JSON.
        for index in range(last, max(-1, last - 2 * self._limits.depth - 8), -2):
            at = parts[index].rfind(b",")
            if at > 0 or (at == 0 and index > 0):
                return index, at
        return None

    def _is_dense(self, parts: list[bytes], outside: bytes) -> bool:
        many = self._sizes.many
        return len(parts) > 4 * many or shape_of(outside).count(b",") > many

    def _refuse_endless(self, parts: int, outside: bytes) -> None:
        """Of what has no comma there are a few keys, brackets and one value, or it is no JSON. Raises: Malformed."""
        refuse_digits(shape_of(outside), self._limits)
        depth = self._limits.depth
        if parts > 2 * depth + 8 or len(outside.translate(None, _BLANK)) > 4 * depth + self._limits.digits + _OTHER:
            self._balance(outside)
            raise Malformed("not JSON")

    def _pass_blanks(self, text: bytes, *, is_last: bool, in_string: bool) -> None:
        """A text without any comma to cut it at: it ends in many blanks, or must be looked at with what follows."""
        if is_last or self._size > 4 * self._sizes.most:
            raise Malformed("not JSON" if is_last else "too many blanks")
        passed = text.rstrip(_BLANK)
        if in_string or len(text) - len(passed) < self._size // 4:
            # By no more than may be dense.
            self._size, self._is_longer = self._size + self._sizes.least, True
        else:
            self._at += len(text) - len(self._before)
            self._before = passed + b" "

    def _long_string(self, head: bytes, outside: bytes) -> Steps[None]:
        """A string that is longer than a piece, and what stands before it."""
        begin = self._at + len(head) + 1 - len(self._before)
        string, end = yield from self._string(begin)
        yield
        if _KEY_ENDS.match(self._data, end):
            if end - begin > self._sizes.most:
                raise Malformed("a key is too long")
            self._size, self._is_longer = end - self._at + self._sizes.least, True
            return
        self._take(head + b'""', outside)
        self._put(string)
        self._at, self._before, self._is_longer = end, b"", False

    def _string(self, at: int) -> Steps[tuple[str, int]]:
        """The rest of a string, in slices, and where the text goes on."""
        slices: list[str] = []
        while True:
            text = self._data[at : at + self._sizes.most]
            bare = blanked(text)
            end = bare.find(b'"')
            if end < 0 and at + len(text) == len(self._data):
                raise Malformed("not JSON")
            text = text[: _whole(text, bare) if end < 0 else end]
            try:
                slices.append(orjson.loads(b'"%b"' % text))
            except ValueError:
                raise Malformed("not JSON") from None
            at += len(text)
            if end >= 0:
                break
            yield
        yield
        return "".join(slices), at + 1

    def _take(self, text: bytes, outside: bytes) -> None:
        """Read a piece, of which this is outside of strings, and add it to what was read before."""
        shape = shape_of(outside)
        self._values += shape.count(b",")
        if self._values > self._limits.nodes:
            raise Malformed(f"more than {self._limits.nodes} values")
        closed, opened = self._balance(outside)
        kept = len(self._open) - closed
        still_open = self._open[:kept] + opened
        if len(still_open) > self._limits.depth:
            raise Malformed(f"nested deeper than {self._limits.depth}")
        key, spelled = self._goes_on(text)
        front = self._open.replace(b"{", b"{%b:" % spelled) + b'""' if self._root else b""
        keys = shape.count(b":") + self._open.count(b"{")
        self._add(read(front + text + still_open[::-1].translate(_CLOSERS), shape, self._limits, keys), key)
        del self._path[kept:]
        for _ in opened:
            self._path.append(self._last())
        self._open = still_open

    def _goes_on(self, text: bytes) -> tuple[str, bytes]:
        """A key that no object of a piece has, and how it is spelled there."""
        for key, spelled in _GOES_ON:
            if spelled not in text:
                return key, spelled
        raise Malformed("too many keys of NULs")

    def _balance(self, outside: bytes) -> tuple[int, bytes]:
        """How many of the open brackets a piece closes, and which it leaves open itself."""
        left = outside.translate(None, _NO_BRACKETS)
        for _ in range(self._limits.depth + 1):
            before = len(left)
            left = left.replace(b"[]", b"").replace(b"{}", b"")
            if len(left) == before:
                break
        else:
            raise Malformed(f"nested deeper than {self._limits.depth}")
        opened = left.lstrip(b"]}")
        closers = left[: len(left) - len(opened)]
        if b"]" in opened or b"}" in opened or not self._open[::-1].translate(_CLOSERS).startswith(closers):
            raise Malformed("not JSON")
        return len(closers), opened

    def _add(self, value: Any, goes_on: str) -> None:
        """What was read of a piece goes where it belongs."""
        if not self._root:
            self._root.append(value)
            return
        for container in self._path:
            if container.__class__ is list:
                container.extend(value[1:])
                value = value[0]
            else:
                inner = value.pop(goes_on)
                keys = len(container) + len(value)
                container.update(value)
                if len(container) != keys:
                    raise Malformed("an object has the same key twice")
                value = inner

    def _last(self) -> Any:
        """The value that was read last, of what is open."""
        if not self._path:
            return self._root[0]
        container = self._path[-1]
        return container[-1] if container.__class__ is list else container[next(reversed(container))]

    def _put(self, string: str) -> None:
        """In place of the value that was read last."""
        container = self._path[-1] if self._path else self._root
        container[-1 if container.__class__ is list else next(reversed(container))] = string


def _whole(text: bytes, bare: bytes) -> int:
    """How many bytes of a string can be read without the rest: it may end amid a character, or in half of a pair."""
    end = len(bare)
    slash = bare.rfind(b"\\", end - 5)
    if slash >= 0 and bare[slash + 1 : slash + 2] in (b"", b"u"):
        end = slash
    if _HIGH.match(bare, end - 6, end):
        end -= 6
    first = end - 1
    while text[first] & 0xC0 == 0x80 and end - first < 4:
        first -= 1
    return first if text[first] >= 0xC0 else end


def writing(value: Any, encode: Callable[[Any], bytes], most: int = SIZES.most) -> Steps[bytes]:
    """What `encode` makes of a value, of about `most` bytes in a step. Raises: as `encode`."""
    written: list[Buffer] = []
    yield from _write(value, weight(value, most), written, encode, most)
    yield
    text = b"".join(written)
    yield
    return text


Buffer: TypeAlias = bytes | memoryview
Encode: TypeAlias = Callable[[Any], bytes]


def _write(value: Any, size: int, written: list[Buffer], encode: Encode, most: int) -> Steps[None]:
    if size <= most or not isinstance(value, (str, dict, list)):
        written.append(encode(value))
    elif isinstance(value, str):
        written.append(b'"')
        for start in range(0, len(value), most):
            written.append(memoryview(encode(value[start : start + most]))[1:-1])
            yield
        written.append(b'"')
    else:
        yield from _write_members(value, written, encode, most)


def _write_members(value: Any, written: list[Buffer], encode: Encode, most: int) -> Steps[None]:
    """An array or an object: of its members so many at once as are light together."""
    container: Any = value
    is_list = isinstance(value, list)
    members: Iterator[Any] = iter(container if is_list else container.items())
    written.append(b"[" if is_list else b"{")
    done = 0
    while batch := list(islice(members, _AT_ONCE)):
        light: Any = batch if is_list else dict(batch)
        size = weight(light, most)
        if size <= most:
            written.extend((memoryview(encode(light))[1:-1], b","))
            done += size
        else:
            for one in batch:
                inner = one if is_list else one[1]
                size = weight(inner, most)
                written.extend(() if is_list else (encode(one[0]), b":"))
                yield from _write(inner, size, written, encode, most)
                written.append(b",")
                done += size
                if done > most // 2:
                    done = 0
                    yield
        if done > most // 2:
            done = 0
            yield
    written[-1] = b"]" if is_list else b"}"
