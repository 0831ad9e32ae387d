"""The brokers and puppets of the hostile tests serve here too."""

from collections.abc import Generator

import pytest

from tests.hostile.conftest import broker_of, puppet
from tests.hostile.cost import nothing_left

__all__ = ["broker_of", "puppet"]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Generator[None, None, None]:
    """After each test, as after the hostile ones."""
    with nothing_left():
        yield
