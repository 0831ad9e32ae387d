"""The machine: its cores, what a process costs, and processes that are gone when they should be."""

import compileall
import contextlib
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
STOP_TIMEOUT: Final = 8.0
"""Seconds that a process gets to end kindly: more than the broker needs to stop ten servers that hang."""
HAS_PROC: Final = Path("/proc/self/task").is_dir()
_ENVIRONMENT: Final = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


_USABLE: Final = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


def compile_sources() -> None:
    """Write the bytecode of what is measured, as an installer does: without it each start would compile the sources."""
    for directory in ("broker", "bench"):
        compileall.compile_dir(ROOT / directory, quiet=1)


def cores() -> tuple[int, int]:
    """The core for the load and the upstreams, and the core for what is measured; the same one if there is one."""
    return _USABLE[0], _USABLE[-1]


@contextlib.contextmanager
def on_core(core: int | None) -> Generator[None, None, None]:
    """What is started inside runs on this core only, where the system can do that; None: on any."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start(argv: Sequence[str], core: int | None = None, log: Path | None = None) -> subprocess.Popen[bytes]:
    """A process in a session of its own; what it says goes to `log`, or nowhere."""
    with on_core(core), contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("ab")) if log is not None else subprocess.DEVNULL
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,
        )


def environment() -> dict[str, str]:
    """For processes that are started in other ways."""
    return {**os.environ, **_ENVIRONMENT}


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process, kindly, then not, and what is left of its session."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_TIMEOUT)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_seconds(pid: int | None) -> float:
    """CPU time of all threads of a process so far, also of those that have ended; 0 where the system does not tell."""
    if pid is None or not HAS_PROC:
        return 0.0
    with contextlib.suppress(OSError):
        return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) gives
    return 0.0


def children_seconds() -> float:
    """CPU time of all that descend from this process and are alive."""
    if not HAS_PROC:
        return 0.0
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    tree = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return sum(map(cpu_seconds, tree - {os.getpid()}))


def busy_seconds() -> float:
    """Time for which the cores that are measured on were not idle since the system started."""
    if not HAS_PROC:
        return 0.0
    names = {f"cpu{core}" for core in cores()}
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in names:
            spent = [int(tick) for tick in ticks[:8]]
            total += sum(spent) - spent[3] - spent[4]
    return total / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    """Resident memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def description() -> dict[str, str]:
    """What numbers depend on."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    packages = ("mcp", "uvicorn", "httptools", "uvloop", "orjson", "aiohttp")
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
        "pinned": "load and upstreams on core {}, what is measured on core {}".format(*cores()),
        "executable": Path(sys.executable).name,
    }
