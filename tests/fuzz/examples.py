"""How many examples a property gets: few in the suite, and many with BROKER_EXAMPLES (`make fuzz`)."""

import os
from typing import Final

EXAMPLES: Final = int(os.environ.get("BROKER_EXAMPLES", "0"))


def at_least(usual: int) -> int:
    """`usual`, or as many as were asked for."""
    return max(usual, EXAMPLES)
