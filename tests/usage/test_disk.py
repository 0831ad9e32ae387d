"""Disks that are full, or refuse: real ones (F-92)."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from broker.clock import SystemClock
from broker.usage.audit import LineAudit
from broker.usage.files import Bounds, Files, paths
from broker.usage.writer import Writer
from tests.peers import ROOT
from tests.relay.fake import Fake, tool
from tests.usage.audited import ask, audited, call, kept, records, until
from tests.usage.trails import BEGAN
from tests.usage.trails import call as record


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A disk of one megabyte, where one can be mounted; else files of no byte, which the kernel refuses alike."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    yield place, "fill" if mounted.returncode == 0 else "limit"
    if mounted.returncode == 0:
        subprocess.run(["umount", str(place)], check=True)


def filled(place: Path, way: str) -> list[int]:
    """The numbers of the records that are there in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.usage.disk_child", str(place), way],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = process.communicate(b"\n", timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out.split()) == (0, [b"room", b"full", b"room"]), err
    assert err.count(b"the audit cannot be written") == 1 and err.count(b"written again") == 1
    lines = [line for path in paths(place / "audit") for line in path.read_bytes().splitlines(keepends=True)]
    assert all(line.endswith(b"\n") for line in lines), "no half line"
    return [orjson.loads(line)["seq"] for line in lines]


def test_F92_a_disk_that_is_full_and_has_room_again_loses_nothing_that_fits_the_memory(
    disk: tuple[Path, str],
) -> None:
    assert filled(*disk) == list(range(1, 121))


def test_F92_a_kernel_that_takes_no_byte_is_a_full_disk(tmp_path: Path) -> None:
    assert filled(tmp_path, "limit") == list(range(1, 121))


async def test_sync_a_record_counts_as_written_once_the_disk_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bytes] = []
    real = os.fsync

    def sync(fd: int) -> None:
        (path,) = paths(tmp_path)
        found.append(path.read_bytes())
        real(fd)

    monkeypatch.setattr(os, "fsync", sync)
    writer = Writer(Files(tmp_path, Bounds(is_synced=True), SystemClock()), SystemClock(), gather=0)
    writer.start()
    assert await writer.written(record("key:ann", "echo", at=BEGAN), 10)
    assert len(found) == 1 and found[0].count(b"\n") == 1, "written first, then synced, and then told"
    writer.close()


async def test_sync_what_the_disk_does_not_take_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with audited(tmp_path, audit={"required": True, "sync": True}) as place:
        assert "result" in await ask(place, *call("one__echo"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            refused = await ask(place, *call("one__echo"))
            assert refused["error"]["code"] == 5030
        assert len(place.fakes["one"].asked) == 1
        audit = place.broker.audit
        assert isinstance(audit, LineAudit)
        await until(lambda: not audit.book.writer.is_failing)
        assert "result" in await ask(place, *call("one__echo"))


async def test_required_lists_and_greetings_wait_for_no_disk_and_are_recorded_once_it_is_back(tmp_path: Path) -> None:
    kept(tmp_path).parent.mkdir(parents=True)
    kept(tmp_path).write_text("in the way")
    fake = Fake(tools=[tool("echo")], prompts=[{"name": "greet"}])
    async with audited(tmp_path, fake, {"required": True}) as place:
        for method in ("tools/list", "prompts/list", "server/discover"):
            assert "result" in await ask(place, method), method
        kept(tmp_path).unlink()
        audit = place.broker.audit
        assert isinstance(audit, LineAudit)
        await until(lambda: not audit.book.writer.is_failing and not audit.book.writer.lag)
    shown = [one["method"] for one in records(tmp_path, "discovery")]
    assert shown == ["tools/list", "prompts/list", "server/discover"]
