"""The arguments of a call, as they are typed: a JSON object, `-` for one on stdin, or `name=value` pairs."""

import sys
from collections.abc import Sequence
from typing import Any

from broker.cli.exits import BAD_INPUT, Stop
from broker.cli.words import line
from broker.core import wire


def parse(words: Sequence[str], *, values_are_text: bool) -> dict[str, Any]:
    """`values_are_text`: of pairs; otherwise a value that is JSON is taken as JSON, anything else as text.

    Raises: Stop.
    """
    if not words:
        return {}
    if list(words) == ["-"]:
        return _object(sys.stdin.buffer.read(wire.FROM_CALLER.size + 1), "stdin")
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        return _object(_bytes(words[0]), "the argument")
    return dict(_pair(word, values_are_text=values_are_text) for word in words)


def _object(data: bytes, where: str) -> dict[str, Any]:
    try:
        return wire.decode_object(data, wire.FROM_CALLER)
    except wire.Malformed as error:
        raise Stop(f"{where} is not a JSON object: {error}", BAD_INPUT) from None


def _pair(word: str, *, values_are_text: bool) -> tuple[str, Any]:
    name, equals, value = word.partition("=")
    if not name or not equals:
        wanted = "name=value pairs, one JSON object, or - to read it from stdin"
        raise Stop(f"{line(word)!r} is no argument: give {wanted}", BAD_INPUT)
    data = _bytes(word)[len(name.encode()) + 1 :]
    if values_are_text:
        return name, value
    try:
        return name, wire.decode(data, wire.FROM_CALLER)
    except wire.Malformed:
        return name, value


def _bytes(word: str) -> bytes:
    try:
        return word.encode()
    except UnicodeEncodeError:
        raise Stop("an argument is not UTF-8 text", BAD_INPUT) from None
