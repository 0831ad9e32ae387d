"""docs/faults.md: every fault that the broker must survive, and the tests that prove it.

A test belongs to a fault by its name: `test_F01_...`, `test_SP09_F05_F06_...`.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent

FAULTS: dict[str, dict[str, str]] = {
    "Servers behind a pipe": {
        "F-01": "dies in the middle of calls",
        "F-02": "exits during its handshake, or at once",
        "F-03": "hangs at its handshake",
        "F-04": "hangs in a call, and ignores that it is cancelled",
        "F-05": "ignores the end of its input, and SIGTERM",
        "F-06": "leaves grandchildren and daemons behind",
        "F-07": "leaves zombies",
        "F-08": "floods its standard error",
        "F-09": "closes one of its pipes alone",
        "F-10": "writes what is no message: banners, warnings",
        "F-11": "begins with a byte order mark",
        "F-12": "writes bytes that are not UTF-8",
        "F-13": "writes a line of 100 MB, or one without end",
        "F-14": "does not read what it is sent",
        "F-15": "cannot be started: no such file, no right, no memory",
        "F-16": "goes away while it is written to",
        "F-17": "looks for secrets in its environment",
    },
    "Messages of servers": {
        "F-20": "answers twice",
        "F-21": "answers what was never asked, or under an id of another type",
        "F-22": "answers with what is no result and no error",
        "F-23": "sends notifications that belong to no call of the caller",
        "F-24": "asks for what nobody offered, thousands of times",
        "F-25": "floods with progress",
        "F-26": "announces changed lists without end",
        "F-27": "has ten thousand tools",
        "F-28": "has a list without an end, or in a circle",
        "F-29": "has one malformed tool among good ones",
        "F-30": "nests JSON without end",
        "F-31": "writes numbers of 100 000 digits",
        "F-32": "writes NaN and infinities",
        "F-33": "writes half of a surrogate pair",
        "F-34": "repeats keys of an object",
        "F-35": "has schemas that explode when they are evaluated",
        "F-36": "returns content that does not fit its own schema",
        "F-37": "comes back with other tools, or in another era",
        "F-38": "gives one caller what belongs to another",
        "F-39": "returns hundreds of megabytes",
        "F-40": "has names that no client accepts, or two of the same name",
        "F-41": "claims that its private lists are public, and good for ever",
    },
    "Servers behind HTTP": {
        "F-50": "compresses gigabytes into a small body",
        "F-51": "has a body without end",
        "F-52": "drips, so that nothing ever times out",
        "F-53": "vanishes without closing the connection",
        "F-54": "wants its stream reopened at once, for ever",
        "F-55": "wants its stream reopened next century",
        "F-56": "redirects elsewhere",
        "F-57": "sends one event of many megabytes",
        "F-58": "refuses every credential",
        "F-59": "is busy (429, 503)",
        "F-60": "answers with a page, with nothing, with another type",
        "F-61": "forgets its session",
        "F-62": "has a bad certificate, no TLS, no address",
        "F-63": "could be sent a header that splits a request",
        "F-64": "is slow, so that connections run out",
    },
    "Callers": {
        "F-70": "send a head or a body slowly, or not at all",
        "F-71": "send a body that is too large",
        "F-72": "go away in the middle of a stream",
        "F-73": "call and cancel, thousands of times",
        "F-74": "stop reading",
        "F-75": "use an id twice",
        "F-76": "send batches, answers nobody asked for, unknown notifications",
        "F-77": "send JSON that two parsers would read differently, or that is built to be costly",
        "F-78": "open ten thousand connections",
        "F-79": "open sessions and do not use them",
        "F-80": "guess keys",
        "F-81": "write into the log and the audit by what they send",
        "F-82": "send garbage on the pipe, or close it",
    },
    "The broker's own ground": {
        "F-90": "SIGTERM during calls",
        "F-91": "SIGKILL, or a power failure",
        "F-92": "the disk of the audit is full, slow, or gone",
        "F-93": "the SQLite file is locked, damaged, full, or read by another broker",
        "F-94": "PostgreSQL, or an issuer of tokens, is down or slow",
        "F-95": "what brokers and workers share of budgets and limits is down or slow",
        "F-96": "one of several replicas goes away",
        "F-97": "the clock is set",
        "F-98": "memory runs out",
        "F-99": "the event loop is blocked",
        "F-100": "descriptors run out",
        "F-101": "the configuration is broken, at the start or at a reload",
        "F-102": "guardrails' processes die, or lie, or are replaced while calls run",
        "F-103": "a dependency changes its behaviour",
        "F-104": "an unexpected exception, anywhere",
        "F-105": "a system without a locale, a CA bundle, a home, or with proxies",
    },
}

WITHOUT_TEST: dict[str, str] = {}
"""Faults that no test can have, and why."""


LOOKS = {
    "i": "another caller or server that is served meanwhile",
    "c": "CPU of each callback of the event loop (50 ms at most)",
    "m": "memory (64 MiB more at most, or what the test says)",
    "d": "descriptors that are left",
    "p": "processes that are left",
}
HARNESS = {"hostile": "cmdp", "upstream": "dp"}
"""What the fixtures of a directory look at after each of its tests."""
HERE = {"broker_of", "front_of", "desk"}
"""Who names one of these has the broker in the test's own process; of another process only its end is seen."""
APART = {"test_contract.py"}
"""Files without those fixtures: their peers outlive a test."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A test, and the faults in its name."""

    file: Path
    sentence: str
    faults: tuple[str, ...]
    looks: str
    """At what it looks, beside what its name says: letters of `LOOKS`."""


def proofs(files: Iterable[Path]) -> Iterator[Proof]:
    for file in sorted(files):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found = re.match(r"test((?:_(?:SP|I|F)\d+)+)_(\w+)", node.name)
                faults = re.findall(r"F(\d+)", found[1]) if found else []
                if found and faults:
                    sentence = found[2].replace("_", " ")
                    yield Proof(file, sentence, tuple(f"F-{number}" for number in faults), looks(file, node))


def looks(file: Path, test: ast.AST) -> str:
    """Letters of `LOOKS`: what is seen in the test's own text, and what the fixtures of its directory do."""
    names = {
        one.attr if isinstance(one, ast.Attribute) else one.arg if isinstance(one, ast.arg) else one.id
        for one in ast.walk(test)
        if isinstance(one, ast.Attribute | ast.arg | ast.Name)
    }
    held = "" if file.name in APART else HARNESS.get(file.parent.name, "")
    if not names & HERE:
        held = held[-1:]
    return ("i" if "innocent" in names else "") + held


def page() -> str:
    """docs/faults.md."""
    found = list(proofs(TESTS.rglob("test_*.py")))
    lines = [
        "# Faults, and what proves that they are survived",
        "",
        "Each test makes the fault with real processes, sockets and files, and looks at the innocent beside it.",
        "The words of the right column are the tests' names. `python -m tests.pages` writes this page.",
        "",
        "Letters behind a name: at what the test looks besides, by its own text (i) or by the fixture that holds every "
        "test of its directory to bounds (`tests/hostile/cost.py`). Other tests look at that in words of their own.",
        "",
        *(f"- **{letter}**: {what}" for letter, what in LOOKS.items()),
    ]
    for title, rows in FAULTS.items():
        lines += ["", f"## {title}", "", "| | fault | proven by |", "|---|---|---|"]
        for fault, what in rows.items():
            links = [
                f"[{proof.sentence}](../{proof.file.relative_to(TESTS.parent)})"
                + (f" **{proof.looks}**" if proof.looks else "")
                for proof in found
                if fault in proof.faults
            ]
            lines.append(f"| {fault} | {what} | {'<br>'.join(links) or WITHOUT_TEST.get(fault, '')} |")
    return "\n".join([*lines, ""])
