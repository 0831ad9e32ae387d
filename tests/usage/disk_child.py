"""Writes records to a disk that has no room until it is told that there is some. Talks over its standard streams.

`limit`: no file of this process may have a byte, which is like a full disk; `fill`: the disk is filled.
"""

import os
import resource
import sys
import time
from pathlib import Path

from broker.clock import SystemClock
from broker.usage.files import Bounds, Files
from broker.usage.writer import Writer
from tests.usage.trails import BEGAN, call

directory, way = Path(sys.argv[1]), sys.argv[2]
writer = Writer(Files(directory / "audit", Bounds(), SystemClock()), SystemClock(), gather=0, retry=0.01)
filler = directory / "filler"


def wait(is_failing: bool) -> None:
    deadline = time.monotonic() + 30
    while writer.is_failing is not is_failing or (not is_failing and writer.lag):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    print("full" if is_failing else "room", flush=True)


def put(first: int, count: int) -> None:
    for index in range(first, first + count):
        assert writer.put(call("key:ann", f"tool{index}" + "x" * 500, at=BEGAN))


writer.start()
put(0, 10)
wait(is_failing=False)
if way == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
else:
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
put(10, 100)
wait(is_failing=True)
sys.stdin.readline()
if way == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
else:
    os.unlink(filler)
wait(is_failing=False)
put(110, 10)
writer.close()
