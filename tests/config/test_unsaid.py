"""Sections that nobody wrote."""

import pytest

from broker.config.model import Config, ServerBase
from broker.config.strict import Strictest

DEFAULTS = [
    (model, name)
    for model in (Config, ServerBase)
    for name, field in model.model_fields.items()
    if isinstance(field.get_default(call_default_factory=True), Strictest)
]


@pytest.mark.parametrize(("model", "name"), DEFAULTS, ids=[name for _, name in DEFAULTS])
def test_a_section_that_nobody_wrote_is_what_an_empty_one_is(model: type[Strictest], name: str) -> None:
    unsaid = model.model_fields[name].get_default(call_default_factory=True)
    assert unsaid == type(unsaid)()
    assert unsaid.model_dump() == type(unsaid)().model_dump()
    assert unsaid.model_fields_set == set()
    assert {one: type(value) for one, value in unsaid} == {one: type(value) for one, value in type(unsaid)()}


def test_these_are_all_sections() -> None:
    assert len(DEFAULTS) == 12
