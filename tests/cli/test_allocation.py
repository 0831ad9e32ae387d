"""What the allocator is told: big messages, one after the other, take no fresh pages from the system."""

import gc
import logging
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from broker.cli import allocation
from broker.cli.begin import begin
from tests.peers import ROOT

MESSAGES = """
import resource, sys
from broker.cli.allocation import keep_pages

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

was_told = sys.argv[1] == "kept" and keep_pages()
before = pages()
for _ in range(100):
    parts = [bytes([n]) * 100_000 for n in range(1, 30)]
    del parts
print(int(was_told), pages() - before)
"""


def fresh_pages(how: str) -> tuple[bool, int]:
    """Whether a process could be told, and how many pages a hundred rounds of big messages take in it."""
    script = [sys.executable, "-c", MESSAGES, how]
    done = subprocess.run(script, capture_output=True, check=True, cwd=ROOT, timeout=60)
    was_told, pages = map(int, done.stdout.split())
    return bool(was_told), pages


def test_pages_of_big_messages_are_kept_where_the_C_library_can() -> None:
    was_told, pages = fresh_pages("kept")
    assert was_told == (platform.libc_ver()[0] == "glibc")
    if was_told:
        assert pages < 5_000 < fresh_pages("as usual")[1]


def test_the_loop_waits_half_a_millisecond_for_a_thread_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "spare_the_collector", lambda: None)
    monkeypatch.setattr(allocation, "keep_pages", lambda: True)
    before = sys.getswitchinterval()
    try:
        allocation.settle_in()
        assert sys.getswitchinterval() == pytest.approx(0.0005)
    finally:
        sys.setswitchinterval(before)


@pytest.fixture
def loading() -> Iterator[None]:
    """The collector and the log as a command finds them, and as they were."""
    root, hooks = logging.getLogger(), (sys.excepthook, sys.unraisablehook, threading.excepthook)
    before = root.level, list(root.handlers)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
        root.setLevel(before[0])
        root.handlers[:] = before[1]
        sys.excepthook, sys.unraisablehook, threading.excepthook = hooks


@pytest.mark.usefixtures("loading")
def test_the_collector_works_once_all_is_loaded_and_leaves_that_alone() -> None:
    begin("error")
    assert gc.isenabled()
    assert gc.get_freeze_count() > 10_000
