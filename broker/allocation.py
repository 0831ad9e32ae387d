"""What a broker that serves asks of the collector, the allocator and the interpreter: to look less often, to keep what
it has for a while, and not to leave a thread that computes alone for long."""

import ctypes
import gc
import logging
import sys
from typing import Any, Final

from broker.clock import Clock
from broker.threads import in_thread

log = logging.getLogger(__name__)

YOUNG: Final = 20_000
"""Objects that are made, and not freed at once, before the garbage collector looks for circles among them. A call
makes hundreds, nearly all of which go without it: at the usual 700 it took an eighth of a busy broker's time."""
KEPT: Final = 32 * 1024 * 1024
"""Bytes of freed memory that the C library keeps for what comes next, until all is given back. At its usual 128 KiB the
pages of each message of that size go back to the system and are asked for again: up to a quarter of the CPU of a call
with 100 kB."""
LARGE: Final = 1024 * 1024
"""Bytes from which on a single piece of memory goes back to the system at once all the same."""
SWITCH: Final = 0.0005
"""Seconds that the event loop waits for a thread that computes, each time it comes back from the system, which it does
several times in a call. At the usual 5 ms a call takes 8 ms while a thread computes, and so 2."""
GIVE_BACK: Final = 10.0
"""Seconds between two times at which freed memory that lies between what is in use goes back to the system. The C
library keeps it, however much that was once, and a broker would grow for hours: each crowd leaves other holes."""
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def settle_in() -> None:
    """Once everything is loaded, before the first request."""
    spare_the_collector()
    keep_pages()
    sys.setswitchinterval(SWITCH)


def spare_the_collector() -> None:
    """What is loaded by now stays until the end: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])


def keep_pages() -> bool:
    """Keep `KEPT` bytes. False where the C library cannot be told so (only glibc can): there nothing changes."""
    mallopt = _of_glibc("mallopt")
    return mallopt is not None and bool(mallopt(_M_MMAP_THRESHOLD, LARGE) and mallopt(_M_TRIM_THRESHOLD, KEPT))


def give_back() -> None:
    """All freed memory to the system, where the C library can: a few tenths of a millisecond for each MB, most where it
    is in small pieces, and a seventh of that to find nothing. Whoever needs memory of it meanwhile waits, in whatever
    thread.
    """
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


async def give_back_at_times(clock: Clock) -> None:
    """Until it is cancelled. What hinders it is said once, and ends nothing else."""
    was_said = False
    while True:
        await clock.sleep(GIVE_BACK)
        try:
            await in_thread(give_back)
            was_said = False
        except Exception as error:  # the system gives no thread, for example
            if not was_said:
                log.warning("what was freed is not given back: %s", error)
            was_said = True


def _of_glibc(name: str) -> Any:
    """A function of the C library; None where that is another one, or cannot be spoken to."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except OSError:  # a Python that is linked statically, and loads nothing
        return None
