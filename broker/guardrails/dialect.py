"""What a guardrail may be written in: functions over plain values, and nothing that reaches out of them.

RestrictedPython rewrites attribute, item, iteration and write expressions into calls of guards. That is no sandbox
(it says so itself), and each new syntax of Python has brought it a hole; so here a list says what may be written, and
what is not on it is refused: kinds of syntax nodes, names, attributes, literals. The text is bounded before anything
parses it and the tree before anything recurses into it. Runs in a worker only, like everything that it lets through.
"""

import ast
import re
from collections.abc import Iterator
from types import CodeType
from typing import Final

from RestrictedPython.compile import compile_restricted_exec
from RestrictedPython.transformer import RestrictingNodeTransformer

from broker.guardrails.source import MAX_SOURCE, Flaw

MAX_NODES: Final = 5000
"""Syntax nodes: each becomes several objects here and in the compiler, constant folding included."""
MAX_DEPTH: Final = 60
"""Nested syntax nodes: parser, transformer and compiler recurse, partly in C, where too deep is a crash."""
MAX_PROBLEMS: Final = 20
"""Problems that are reported: a text of errors must not become a list of millions."""
MAX_DIGITS: Final = 64
"""Of a number, as on the wire: what is longer could not be sent on."""
FILENAME: Final = "<guardrail>"
"""Of every code object of a guardrail: tells its lines from ours."""
ENTRY: Final = "check"
"""The function that is called, with one argument."""

_UNWRITABLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, tab and newline aside
    "\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""Characters with which a text can show one thing to its reader and say another to the parser."""

_STATEMENTS: Final = (
    *(ast.Module, ast.FunctionDef, ast.Return, ast.Expr, ast.Pass, ast.Assign, ast.AugAssign, ast.Delete),
    *(ast.If, ast.For, ast.While, ast.Break, ast.Continue, ast.Try, ast.ExceptHandler, ast.Raise, ast.Assert),
)
_EXPRESSIONS: Final = (
    *(ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Lambda, ast.Call, ast.keyword, ast.Starred),
    *(ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.List, ast.Tuple, ast.Dict, ast.Set),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension),
    *(ast.JoinedStr, ast.FormattedValue, ast.arguments, ast.arg, ast.Load, ast.Store, ast.Del),
)
_OPERATORS: Final = (
    *(ast.And, ast.Or, ast.Not, ast.UAdd, ast.USub, ast.Invert, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv),
    *(ast.Mod, ast.RShift, ast.BitOr, ast.BitXor, ast.BitAnd),
    *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Is, ast.IsNot, ast.In, ast.NotIn),
)
WRITABLE: Final[frozenset[type[ast.AST]]] = frozenset((*_STATEMENTS, *_EXPRESSIONS, *_OPERATORS))
"""What may stand in a guardrail. Not here, on purpose: imports, classes, global and nonlocal, with, yield, async,
match, `except*`, `:=`, `@`, annotations of variables, template strings; `**` and `<<`, which make numbers of any length
out of a few characters; and whatever later versions of Python bring."""

_PARTS: Final = (ast.alias, ast.withitem, ast.match_case, ast.pattern)
"""Nodes that stand only below one that is refused: the reader need not be told twice."""
_LITERALS: Final = (str, int, float, bool, type(None))


class NotAccepted(Exception):
    """The text is no guardrail."""

    def __init__(self, flaws: list[Flaw]) -> None:
        super().__init__(flaws[0].message)
        self.flaws = flaws[:MAX_PROBLEMS]


class Dialect(RestrictingNodeTransformer):
    """RestrictedPython's transformer behind our list of nodes: what `judge` may have missed stops here."""

    def visit(self, node: ast.AST) -> ast.AST:
        """See `ast.NodeVisitor`."""
        if type(node) not in WRITABLE:
            self.not_allowed(node)
            return node
        return super().visit(node)


def translate(text: bytes, known: frozenset[str], attributes: frozenset[str]) -> CodeType:
    """The code object of a guardrail. `known`: names it need not define; `attributes`: what may follow a dot.

    Raises: NotAccepted. Whatever else it raises (the parser has many ways) is a refusal as well.
    """
    source = read_text(text)
    try:
        tree = ast.parse(source, FILENAME)
    except SyntaxError as error:
        raise NotAccepted([Flaw(error.lineno or 1, f"syntax: {error.msg}")]) from None
    flaws = judge(tree, known, attributes)
    if flaws:
        raise NotAccepted(flaws)
    result = compile_restricted_exec(tree, FILENAME, policy=Dialect)
    if result.code is None or result.errors:
        raise NotAccepted([_flaw_of(error) for error in result.errors] or [Flaw(1, "not accepted")])
    return result.code


def read_text(text: bytes) -> str:
    """The bounds of a text, before anything parses it. Raises: NotAccepted."""
    if len(text) > MAX_SOURCE:
        raise NotAccepted([Flaw(1, f"longer than {MAX_SOURCE} bytes")])
    try:
        source = text.decode().removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise NotAccepted([Flaw(text.count(b"\n", 0, error.start) + 1, "not UTF-8 text")]) from None
    found = _UNWRITABLE.search(source)
    if found is not None:
        line = source.count("\n", 0, found.start()) + 1
        raise NotAccepted([Flaw(line, f"the character U+{ord(found[0]):04X} may not stand in a guardrail")])
    return source


def judge(tree: ast.Module, known: frozenset[str], attributes: frozenset[str]) -> list[Flaw]:
    """What is wrong with a tree, in the order of its lines; nothing recurses."""
    nodes: list[ast.AST] = []
    level: list[ast.AST] = [tree]
    line = 1
    for _ in range(MAX_DEPTH):
        nodes += level
        if len(nodes) > MAX_NODES:
            return [Flaw(1, f"more than {MAX_NODES} syntax nodes")]
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        line = next((node.lineno for node in level if isinstance(node, ast.expr | ast.stmt)), line)
    if level:
        return [Flaw(line, f"nested deeper than {MAX_DEPTH} levels")]
    names = known | _bound(nodes)
    flaws = [Flaw(getattr(node, "lineno", 1), said) for node in nodes for said in _said_of(node, names, attributes)]
    flaws += _entry(tree)
    return sorted(flaws, key=lambda flaw: flaw.line)


def _said_of(node: ast.AST, names: frozenset[str], attributes: frozenset[str]) -> Iterator[str]:
    """What is wrong with one node, without what is below it."""
    if type(node) not in WRITABLE and not isinstance(node, _PARTS):
        yield f"{type(node).__name__} may not be used in a guardrail"
    match node:
        case ast.Name(id=name):
            if isinstance(node.ctx, ast.Load) and name not in names:
                yield f"there is no name {name!r} here" if name.isascii() else "there is no such name here"
            yield from _reserved(name)
        case ast.arg(arg=name):
            yield from _reserved(name)
        case ast.Attribute(attr=name):
            if not isinstance(node.ctx, ast.Load):
                yield "attributes cannot be set or deleted"
            elif name not in attributes:
                yield f".{name} may not be used" if name.isascii() else "this attribute may not be used"
        case ast.Constant(value=value):
            yield from _literal(value)
        case ast.FunctionDef():
            yield from _definition(node)
        case ast.ExceptHandler():
            if node.type is None:
                yield "a bare except may not be used: name what is expected"
            yield from _reserved(node.name or "")
        case ast.comprehension(is_async=flag) if flag:
            yield "async may not be used in a guardrail"
        case ast.Try(finalbody=final) if any(_leaves(child) for child in final):
            yield "return, break and continue may not stand in finally"
        case ast.AugAssign(target=target) if not isinstance(target, ast.Name):
            yield "only names can be changed with += and its like"
        case _:
            pass


def _definition(node: ast.FunctionDef) -> Iterator[str]:
    yield from _reserved(node.name)
    if node.decorator_list:
        yield "decorators may not be used"
    if getattr(node, "type_params", None):
        yield "type parameters may not be used"


def _reserved(name: str) -> Iterator[str]:
    """The guards have names that begin with an underscore: none may stand in their place."""
    if not name.isascii():
        yield "names must be ASCII"
    elif name.startswith("_"):
        yield f"the name {name!r} begins with an underscore"


def _literal(value: object) -> Iterator[str]:
    if type(value) not in _LITERALS:
        yield f"{type(value).__name__} literals may not be used: values are JSON"
    elif type(value) is int and abs(value) >= 10**MAX_DIGITS:
        yield f"a number of more than {MAX_DIGITS} digits"


def _leaves(node: ast.AST) -> bool:
    """Whether a statement could leave a `finally`, and so swallow what ended the `try`."""
    return any(isinstance(below, ast.Return | ast.Break | ast.Continue) for below in ast.walk(node))


def _entry(tree: ast.Module) -> list[Flaw]:
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == ENTRY]
    if not found:
        return [Flaw(1, f"there is no function {ENTRY}(ctx)")]
    if len(found) > 1:
        return [Flaw(found[1].lineno, f"{ENTRY} is defined twice")]
    arguments = found[0].args
    others = (arguments.posonlyargs, arguments.vararg, arguments.kwonlyargs, arguments.kwarg, arguments.defaults)
    if len(arguments.args) != 1 or any(others):
        return [Flaw(found[0].lineno, f"{ENTRY} must take exactly one argument: def {ENTRY}(ctx)")]
    return []


def _bound(nodes: list[ast.AST]) -> frozenset[str]:
    """Every name that the text itself gives a value, wherever: enough to tell a misspelt one."""
    bound: set[str] = set()
    for node in nodes:
        match node:
            case ast.Name(id=name) if isinstance(node.ctx, ast.Store):
                bound.add(name)
            case ast.arg(arg=name) | ast.FunctionDef(name=name):
                bound.add(name)
            case ast.ExceptHandler(name=str(name)):
                bound.add(name)
            case _:
                pass
    return frozenset(bound)


_SAID = re.compile(r"Line (\d+): (.*)", re.DOTALL)


def _flaw_of(error: str) -> Flaw:
    found = _SAID.match(error)
    return Flaw(int(found[1]), found[2][:200]) if found else Flaw(1, error[:200])
