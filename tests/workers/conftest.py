"""Workers as processes."""

from collections.abc import Iterator

import pytest

from tests.cli.conftest import Program
from tests.cli.conftest import program as running_program  # noqa: F401 - the fixture below needs it
from tests.workers.crew import OPENED


@pytest.fixture
def program(running_program: Program) -> Iterator[Program]:  # noqa: F811
    yield running_program
    while OPENED:
        OPENED.pop().close()
