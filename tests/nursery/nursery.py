"""`python -m tests.nursery.nursery SOCKET`: imports, listens, and forks for each doorman. It ends when its stdin does.

It has one thread and no event loop, so that a fork of it is as good as a new interpreter.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import broker

PRELOADED = (
    "tests.servers.probe",
    "tests.conformance.client",
    "tests.conformance.reference",
    "mcp.client.stdio",
    "mcp.server.mcpserver",
)
LEFT_OUT = ("__main__", "alembic", "migrations")
"""Parts of module names: what runs when it is imported."""
STREAMS = (
    ("stdin", 0, "r", "surrogateescape"),
    ("stdout", 1, "w", "surrogateescape"),
    ("stderr", 2, "w", "backslashreplace"),
)


def preload() -> None:
    for name in [*PRELOADED, *modules(broker)]:
        # Optional drivers may be missing.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def modules(package: ModuleType) -> list[str]:
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [each.name for each in found if not any(part in each.name for part in LEFT_OUT)]


@dataclass(frozen=True)
class Wanted:
    """What a fork has to be."""

    argv: Sequence[str]
    cwd: str
    env: dict[str, str]
    descriptors: Sequence[int]


@dataclass
class Nursery:
    listener: socket.socket
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    doormen: dict[int, socket.socket] = field(default_factory=dict)
    """By the process id of the fork."""

    def serve(self) -> Wanted | None:
        """Returns None at the end of stdin, and, in a fork, what it has to be."""
        awake, wake = os.pipe()
        for descriptor in (awake, wake):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for file in (self.listener, awake, 0):
            self.selector.register(file, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select():
                if key.fileobj == 0:
                    self.kill_all()
                    return None
                if key.fileobj == awake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(awake, 4096)
                    self.collect()
                elif key.fileobj is self.listener:
                    wanted = self.admit()
                    if wanted is not None:
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                        os.close(awake)
                        os.close(wake)
                        return wanted
                elif key.data in self.doormen:
                    # A doorman says nothing: it is gone, and its fork goes with it.
                    os.kill(key.data, signal.SIGKILL)
                    self.selector.unregister(key.fileobj)

    def admit(self) -> Wanted | None:
        """Fork for the next doorman. In the fork: what it has to be."""
        doorman, _ = self.listener.accept()
        try:
            wanted = receive(doorman)
        except (OSError, ValueError):  # killed before it had said what it wanted
            doorman.close()
            return None
        pid = os.fork()
        if pid == 0:
            self.selector.close()
            for each in (self.listener, doorman, *self.doormen.values()):
                each.close()
            return wanted
        for descriptor in wanted.descriptors:
            os.close(descriptor)
        self.doormen[pid] = doorman
        self.selector.register(doorman, selectors.EVENT_READ, pid)
        tell(doorman, pid)
        return None

    def collect(self) -> None:
        """Tell the doormen of all forks that have ended."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                doorman = self.doormen.pop(ended[0])
                with contextlib.suppress(KeyError):
                    self.selector.unregister(doorman)
                tell(doorman, ended[1])
                doorman.close()

    def kill_all(self) -> None:
        for pid in self.doormen:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def receive(doorman: socket.socket) -> Wanted:
    """Raises: OSError, ValueError."""
    head, descriptors, _, _ = socket.recv_fds(doorman, 4, 3)
    with doorman.makefile("rb") as stream:
        told: dict[str, Any] = json.loads(stream.read(int.from_bytes(head, "big")))
    return Wanted(told["argv"], told["cwd"], told["env"], descriptors)


def tell(doorman: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):
        doorman.sendall(number.to_bytes(4, "big"))


def become(wanted: Wanted) -> None:
    """Run what is wanted, as its interpreter would. Returns or raises as it does."""
    os.setsid()
    for descriptor, given in enumerate(wanted.descriptors):
        os.dup2(given, descriptor)
        os.close(given)
    # A text stream keeps what it found out about its descriptor when it was made.
    for name, number, mode, errors in STREAMS:
        stream = os.fdopen(number, mode, 1 if number == 2 else -1, encoding="utf-8", errors=errors, closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.chdir(wanted.cwd)
    os.environ.clear()
    os.environ.update(wanted.env)
    first, *rest = wanted.argv
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


def main(path: str) -> None:
    preload()
    # What was imported stays: no collection looks at it again, and no fork copies it for that.
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen(128)
    os.rename(f"{path}.new", path)  # whoever sees it can connect
    wanted = Nursery(listener).serve()
    if wanted is not None:
        become(wanted)


if __name__ == "__main__":
    main(sys.argv[1])
