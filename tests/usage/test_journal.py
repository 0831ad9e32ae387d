"""What was spent, in a file that outlives its process."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from broker.core.budget import Account
from broker.core.period import Period
from broker.usage import journal as module
from broker.usage.journal import NO_SLOT, SLOT, Journal, LeftBehind, Slot
from tests.peers import ROOT

DAY = Account("key:acme/data/ci", Period.DAY, 86_400)
MONTH = Account("org:acme", Period.MONTH, 0)

SPENDS = """
import os, signal, sys
from pathlib import Path
from broker.usage.journal import Journal
from tests.usage.test_journal import DAY, MONTH

journal = Journal(Path(sys.argv[1]), "killed")
journal.open()
day, month = journal.slot(DAY), journal.slot(MONTH)
for spent in range(1, 1001):
    day.cells[day.cell] = spent
month.cells[month.cell] = 7
os.kill(os.getpid(), signal.SIGKILL)
"""


def put(slot: Slot, spent: int) -> None:
    slot.cells[slot.cell] = spent


def left(directory: Path, holder: str = "me") -> list[LeftBehind]:
    return list(Journal(directory, holder).left_behind())


def test_what_a_process_has_spent_survives_that_it_is_killed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SPENDS, str(tmp_path)], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -9
    (found,) = left(tmp_path)
    assert (found.holder, found.spent) == ("killed", {DAY: 1000, MONTH: 7})
    found.remove()
    assert left(tmp_path) == []


def test_a_journal_that_is_in_use_is_nobody_elses(tmp_path: Path) -> None:
    mine = Journal(tmp_path, "me")
    mine.open()
    put(mine.slot(DAY), 5)
    assert left(tmp_path, "other") == left(tmp_path, "me") == []
    mine.close(is_told=False)
    assert [one.holder for one in left(tmp_path, "other")] == ["me"]


def test_a_slot_that_was_left_says_nothing_of_whoever_had_it(tmp_path: Path) -> None:
    mine = Journal(tmp_path, "me")
    mine.open()
    slot = mine.slot(DAY)
    put(slot, 5)
    mine.leave(slot)
    put(mine.slot(MONTH), 3)
    mine.close(is_told=False)
    (found,) = left(tmp_path, "other")
    assert found.spent == {MONTH: 3}


def test_more_accounts_than_there_are_slots_are_not_kept(tmp_path: Path) -> None:
    mine = Journal(tmp_path, "me")
    assert mine.slot(DAY) is NO_SLOT
    mine.open()
    for number in range(module.SLOTS):
        assert mine.slot(Account("org:acme", Period.HOUR, number)) is not NO_SLOT
    assert mine.slot(DAY) is NO_SLOT
    assert mine.slot(Account("x" * SLOT, Period.HOUR, 0)) is NO_SLOT
    mine.close(is_told=True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_journal_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "odd.spent").write_bytes(b"\x01" * 3 * SLOT)
    (tmp_path / "short.spent").write_bytes(b"x")
    (tmp_path / "other.txt").write_bytes(b"\x01" * SLOT)
    assert [(one.holder, dict(one.spent)) for one in left(tmp_path)] == [("odd", {}), ("short", {})]


def test_a_file_that_another_broker_takes_for_a_dead_ones_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, path, locks = Journal(tmp_path, "me"), tmp_path / "me.spent", [0]
    try_lock = module.try_lock

    def late(handle: int) -> bool:
        locks[0] += 1
        if locks[0] == 1:
            path.unlink()  # so quick was the other one
        return try_lock(handle)

    monkeypatch.setattr(module, "try_lock", late)
    journal.open()
    put(journal.slot(DAY), 5)
    assert locks == [2] and path.stat().st_size > 0
    assert module._read(path) == {DAY: 5}
    journal.close(is_told=True)


def test_a_file_that_another_broker_has_just_made_and_not_locked_yet_is_not_that_of_a_dead_one(tmp_path: Path) -> None:
    (tmp_path / "starting.spent").touch()
    assert left(tmp_path) == []


def test_F92_a_journal_that_found_no_room_can_be_opened_when_there_is_some(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "me")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="large"):
            journal.open()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir()), "what nobody would clear away is gone"
    journal.open()
    assert journal.slot(DAY) is not NO_SLOT
    journal.close(is_told=True)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot promise room")
def test_F92_the_disk_has_the_room_before_anything_is_written_into_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "me")
    journal.open()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_blocks * 512 >= path.stat().st_size > 0
    journal.close(is_told=True)


def test_a_file_that_is_never_ours_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "try_lock", lambda handle: False)
    with pytest.raises(OSError, match="busy"):
        Journal(tmp_path, "me").open()
