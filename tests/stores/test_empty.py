"""What stands for a store that was never made answers whatever may be asked of one, but where only writers ask."""

import inspect

from broker.stores.directory import DirectoryStore, Reading
from broker.stores.empty import EmptyReading, EmptyStore

WATCHES = {"revision_if_touched"}
"""Of a store: what its watch asks, and there is none of nothing."""


def asked(kind: type) -> set[str]:
    return {name for name, found in vars(kind).items() if not name.startswith("_") and inspect.isfunction(found)}


def test_a_reading_of_nothing_can_be_asked_all_that_a_reading_can_but_for_rows_as_they_came() -> None:
    assert asked(Reading) - asked(EmptyReading) == {"found", "keys", "concerned"}
    for name in asked(EmptyReading):
        assert inspect.iscoroutinefunction(getattr(EmptyReading, name)), name


def test_a_store_of_nothing_can_be_asked_all_that_the_command_line_asks() -> None:
    assert asked(DirectoryStore) - asked(EmptyStore) - WATCHES == set()
