"""The files of the audit: whole lines, whatever happens to the process, the disk and the files."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from broker.clock import FakeClock
from broker.usage.files import Bounds, Files, paths

DAY = 86_400.0


class Wall(FakeClock):
    """A fake clock at a date of our time."""

    def wall(self) -> float:
        return 1_790_000_000.0 + self.now()


def written(files: Files, *lines: bytes) -> None:
    for line in lines:
        files.turn(len(line))
        files.append(line)


def lines(directory: Path) -> list[bytes]:
    return [line for path in paths(directory) for line in path.read_bytes().splitlines(keepends=True)]


def test_lines_are_appended_to_a_file_that_only_its_owner_can_read(tmp_path: Path) -> None:
    files = Files(tmp_path / "audit", Bounds(), FakeClock())
    written(files, b"one\n", b"two\n")
    (path,) = paths(tmp_path / "audit")
    assert path.read_bytes() == b"one\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_another_file_is_begun_each_day_and_when_one_is_full(tmp_path: Path) -> None:
    clock = Wall()
    files = Files(tmp_path, Bounds(max_bytes=80), clock)
    written(files, b"1234\n", b"6789\n", b"1234\n")
    assert len(list(paths(tmp_path))) == 2
    clock.advance(DAY)
    written(files, b"a\n")
    assert len(list(paths(tmp_path))) == 3


def test_what_is_too_old_or_too_much_is_removed_and_what_somebody_writes_is_kept(tmp_path: Path) -> None:
    clock = Wall()
    other = Files(tmp_path, Bounds(max_bytes=800), clock)
    written(other, b"other\n")
    files = Files(tmp_path, Bounds(keep_days=2, max_bytes=800), clock)
    for index in range(30):
        written(files, f"{index:099}\n".encode())
        clock.advance(1)
    kept = lines(tmp_path)
    assert b"other\n" in kept and sum(map(len, kept)) <= 800
    assert kept[-1] == f"{29:099}\n".encode()
    other.close()
    files.close()
    clock.advance(3 * DAY)
    for path in paths(tmp_path):
        os.utime(path, (clock.wall() - 3 * DAY, clock.wall() - 3 * DAY))
    written(files, b"new\n")
    assert lines(tmp_path) == [b"new\n"]


def test_F91_a_half_line_of_a_crash_is_cut_off_at_the_next_start(tmp_path: Path) -> None:
    half = tmp_path / "20260101T000000Z-00000000-0001.jsonl"
    half.write_bytes(b'{"event":"call"}\n{"event":"ca')
    empty = tmp_path / "20260101T000000Z-00000000-0002.jsonl"
    empty.write_bytes(b"x" * 200_000)
    Files(tmp_path, Bounds(), FakeClock(1_767_225_600)).prepare()
    assert half.read_bytes() == b'{"event":"call"}\n'
    assert empty.read_bytes() == b""


def test_the_file_of_a_living_broker_is_not_repaired(tmp_path: Path) -> None:
    files = Files(tmp_path, Bounds(), FakeClock())
    written(files, b"one\n")
    (path,) = paths(tmp_path)
    with path.open("ab") as file:
        file.write(b"tw")
    Files(tmp_path, Bounds(), FakeClock()).prepare()
    assert path.read_bytes() == b"one\ntw"


def test_F92_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(tmp_path, Bounds(), FakeClock())
    written(files, b"one\n")
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
        with pytest.raises(OSError, match="No space left"):
            written(files, b"two two\n")
    written(files, b"three\n")
    assert lines(tmp_path) == [b"one\n", b"three\n"]


def test_F92_dev_full_is_an_error_and_the_next_try_is_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(tmp_path, Bounds(), FakeClock())
    with monkeypatch.context() as patch:
        patch.setattr(files, "_opened", lambda path: os.open("/dev/full", os.O_WRONLY))
        patch.setattr(files, "_is_mine", lambda: True)
        with pytest.raises(OSError, match="No space left"):
            written(files, b"one\n")
    written(files, b"two\n")
    assert lines(tmp_path) == [b"two\n"]


def test_F92_a_file_that_is_removed_or_put_aside_is_followed_by_another(tmp_path: Path) -> None:
    files = Files(tmp_path, Bounds(), FakeClock())
    written(files, b"one\n")
    (first,) = paths(tmp_path)
    first.unlink()
    written(files, b"two\n")
    (second,) = paths(tmp_path)
    second.rename(tmp_path / "aside")
    written(files, b"three\n")
    assert lines(tmp_path) == [b"three\n"]


def test_a_broker_that_is_killed_loses_nothing_that_was_written(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from broker.clock import SystemClock\nfrom broker.usage.files import Bounds, Files\n"
        "files = Files(Path(sys.argv[1]), Bounds(), SystemClock())\n"
        'for index in range(1000):\n    line = b\'{"event": "call", "seq": %d}\\n\' % index\n'
        "    files.turn(len(line))\n    files.append(line)\n    print(index, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, timeout=60, check=False)
    said = ran.stdout.split()
    assert [orjson.loads(line)["seq"] for line in lines(tmp_path)] == list(range(len(said))) == list(range(1000))
