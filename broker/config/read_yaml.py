"""YAML -> Document, from the parser's events: bounded before anything recurses, no tags that construct objects.

Plain scalars are read as YAML 1.2 (core) reads them: `no` and `on` are texts, `2025-11-25` is a text and no date,
`1:30` is no number. Keys are always texts.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import yaml

from broker.config.document import MAX_DEPTH, MAX_NODES, Data, Document, Finding, Path, UnreadableError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is 10 times as fast, and not everywhere
_CORE = "tag:yaml.org,2002:"
_NULL = re.compile(r"(?:~|null|Null|NULL|)")
_BOOL = re.compile(r"(?:true|True|TRUE)|(?:false|False|FALSE)")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?:[0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40}|[0-9]{1,40}(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?")
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_QUOTED = re.compile(r"""(['"])[^'"\s]{4,}\1""")


@dataclass(frozen=True, slots=True)
class _Scalar:
    line: int
    value: Data
    text: str
    is_merge: bool


@dataclass(frozen=True, slots=True)
class _List:
    line: int
    items: list["_Node"] = field(default_factory=list["_Node"])


@dataclass(frozen=True, slots=True)
class _Map:
    line: int
    pairs: list[tuple[_Scalar, "_Node"]] = field(default_factory=list[tuple[_Scalar, "_Node"]])


_Node: TypeAlias = _Scalar | _List | _Map


def read_yaml(text: str) -> Document:
    """Raises: UnreadableError, if it is not one YAML document of plain data, or passes a bound."""
    root = _Composer(_events(text)).compose()
    builder = _Builder()
    data = builder.build(root, ())
    return Document(data, builder.lines, findings=tuple(builder.findings))


def _events(text: str) -> Iterator[Any]:
    if control := _CONTROL.search(text):
        line = text.count("\n", 0, control.start()) + 1
        raise UnreadableError("YAML syntax: a control character", "Write it as an escape in double quotes.", line)
    try:
        yield from cast("Iterator[Any]", yaml.parse(text, Loader=_Loader))  # pyright: ignore[reportUnknownMemberType]
        return
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        # A tag or alias that the parser quotes may be an unquoted password.
        said = _QUOTED.sub("...", str(error.problem or "not understood"))
        failure = UnreadableError(f"YAML syntax: {said}", line=mark.line + 1 if mark else None)
    except (yaml.YAMLError, UnicodeError):
        failure = UnreadableError("YAML syntax: a character that is not allowed")
    raise failure  # outside of the clauses above, whose errors hold pieces of the file


class _Composer:
    """Events -> nodes; an alias is the node it refers to. Depth and number of nodes are bounded while reading."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, _Node] = {}
        self._nodes = 0

    def compose(self) -> _Node:
        self._next()  # the start of the stream
        if isinstance(self._next(), yaml.StreamEndEvent):
            raise UnreadableError("the file is empty", "Start with a line servers:.")
        root = self._node(self._next(), 0)
        self._next()  # the end of the document
        if not isinstance(event := self._next(), yaml.StreamEndEvent):
            raise UnreadableError("more than one YAML document", "Remove the line ---.", _line(event))
        return root

    def _next(self) -> Any:
        return next(self._events)

    def _node(self, event: Any, depth: int) -> _Node:
        self._nodes += 1
        if self._nodes > 2 * MAX_NODES:  # keys are nodes here
            raise UnreadableError(f"more than {MAX_NODES} values", line=_line(event))
        if depth > MAX_DEPTH:
            raise UnreadableError(f"nested deeper than {MAX_DEPTH} levels", line=_line(event))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        node = self._content(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any) -> _Node:
        # An anchor is known once its node is complete, so nothing can contain itself.
        if (node := self._anchors.get(event.anchor)) is None:
            remedy = "Put a value that begins with * in quotes."
            raise UnreadableError("a * alias without its & anchor before it", remedy, _line(event))
        return node

    def _content(self, event: Any, depth: int) -> _Node:
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            _check_tag(event, "seq")
            items = _List(_line(event))
            while not isinstance(following := self._next(), yaml.SequenceEndEvent):
                items.items.append(self._node(following, depth + 1))
            return items
        _check_tag(event, "map")
        mapping = _Map(_line(event))
        while not isinstance(following := self._next(), yaml.MappingEndEvent):
            key = self._node(following, depth + 1)
            if not isinstance(key, _Scalar):
                raise UnreadableError("a key must be a text", "Put a key or value with { or [ in quotes.", key.line)
            # The line of this key, also where an alias stands for it.
            key = _Scalar(_line(following), key.value, key.text, key.is_merge)
            mapping.pairs.append((key, self._node(self._next(), depth + 1)))
        return mapping


def _line(event: Any) -> int:
    return event.start_mark.line + 1


def _check_tag(event: Any, kind: str) -> None:
    if event.tag not in {None, "!", _CORE + kind}:
        raise _unknown_tag(event)


def _unknown_tag(event: Any) -> UnreadableError:
    return UnreadableError(
        "a ! tag, which has no meaning here", "Put a value that begins with ! in quotes.", _line(event)
    )


def _scalar(event: Any) -> _Scalar:
    tag, text = event.tag, str(event.value)
    plain = tag is None and event.implicit[0]
    if not plain and tag not in {None, "!", _CORE + "str"}:
        raise _unknown_tag(event)
    return _Scalar(_line(event), _plain(text) if plain else text, text, plain and text == "<<")


def _plain(text: str) -> Data:
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text[0] in "tT"
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


class _Builder:
    """Nodes -> data and lines. Aliases are expanded here, so the bounds are checked again."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.findings: list[Finding] = []
        self._nodes = 0

    def build(self, node: _Node, path: Path) -> Data:
        self._count(node, path)
        if isinstance(node, _Scalar):
            return node.value
        if isinstance(node, _List):
            return [self._item(item, (*path, index)) for index, item in enumerate(node.items)]
        return self._mapping(node, path)

    def _count(self, node: _Node, path: Path) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise UnreadableError(f"more than {MAX_NODES} values, aliases expanded", line=node.line)
        if len(path) > MAX_DEPTH:
            raise UnreadableError(f"nested deeper than {MAX_DEPTH} levels, aliases expanded", line=node.line)

    def _item(self, node: _Node, path: Path) -> Data:
        self.lines[path] = node.line
        return self.build(node, path)

    def _mapping(self, node: _Map, path: Path) -> dict[str, Data]:
        result = self._merged(node, path)
        seen: dict[str, int] = {}
        for key, value in node.pairs:
            here = (*path, key.text)
            if key.text in seen:
                message = f"duplicate key, first used in line {seen[key.text]}"
                self.findings.append(Finding(here, message, "Remove one of them.", key.line))
                continue
            seen[key.text] = key.line
            if not key.is_merge:
                self.lines[here] = key.line
                result[key.text] = self.build(value, here)
        return result

    def _merged(self, node: _Map, path: Path) -> dict[str, Data]:
        """What `<<: *base` brings in; the mapping's own keys are laid over it, the first of several bases wins."""
        result: dict[str, Data] = {}
        for base in (base for key, value in node.pairs if key.is_merge for base in _bases(value)):
            self._count(base, (*path, "<<"))
            for name, value in self._mapping(base, path).items():
                result.setdefault(name, value)
        return result


def _bases(value: _Node) -> list[_Map]:
    candidates = value.items if isinstance(value, _List) else [value]
    bases = [base for base in candidates if isinstance(base, _Map)]
    if len(bases) < len(candidates):
        raise UnreadableError(
            "<< needs a mapping, or a list of mappings", 'Quote it ("<<") to use it as a key.', value.line
        )
    return bases
