"""Properties run without a deadline: a busy machine is no fault of the code. Costs are measured in CPU time."""

from hypothesis import settings

settings.register_profile("core", deadline=None)
settings.load_profile("core")
