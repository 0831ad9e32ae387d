"""The trail of one request, which is its record: filled once, and no more than the record once it is over."""

from pathlib import Path
from typing import Any, cast
from weakref import ref

import pytest

from broker.clock import FakeClock
from broker.core.caller import LOCAL
from broker.errors import InternalError, Unrecorded
from broker.usage.files import Bounds, Files
from broker.usage.line_trail import Book, LineTrail
from broker.usage.meter import Counts
from broker.usage.writer import Writer


class Params(dict[str, Any]):
    """Parameters of which it can be seen whether they are kept."""


class Kept(Writer):
    """One that never comes to write."""

    def __init__(self, directory: Path) -> None:
        super().__init__(Files(directory, Bounds(), FakeClock()), FakeClock())

    @property
    def records(self) -> list[LineTrail]:
        return cast(list[LineTrail], list(self._waiting))


def begun(writer: Writer, params: Params, *, is_required: bool = False) -> LineTrail:
    book = Book(writer, FakeClock(), Counts(["one"]), is_required)
    return LineTrail(book, LOCAL, "http", "2026-07-28", "tools/call", "", params, 7)


@pytest.mark.parametrize("is_required", [False, True])
async def test_what_a_call_was_given_does_not_wait_for_the_disk_with_its_record(
    tmp_path: Path, is_required: bool
) -> None:
    writer, params = Kept(tmp_path), Params(name="one__echo")
    kept, trail = ref(params), begun(writer, params, is_required=is_required)
    if is_required:
        with pytest.raises(Unrecorded):
            await trail.recorded()
    del params
    assert kept() is not None
    trail.ended({}, 9)
    assert kept() is None and len(writer.records) == 1 + is_required


def test_what_is_told_after_the_end_changes_nothing(tmp_path: Path) -> None:
    writer = Kept(tmp_path)
    trail = begun(writer, Params(name="one__echo"))
    trail.ended({"isError": True}, 9)
    trail.failed(InternalError("a1"))
    trail.cancelled()
    trail.ended({}, 10)
    (record,) = writer.records
    assert (record.outcome, record.code, record.error, record.result_bytes) == ("failed", 0, "", 9)
    assert trail._book.meter.in_flight == 0
