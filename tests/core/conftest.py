"""Properties run without a deadline: a busy machine is no fault of the code. Costs are measured in CPU time."""

from hypothesis import settings

from tests.fuzz.examples import at_least

settings.register_profile("core", deadline=None, max_examples=at_least(100))
settings.load_profile("core")
