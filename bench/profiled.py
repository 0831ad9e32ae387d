"""The broker under cProfile: `python -m bench.profiled FILE serve ...`. SIGUSR1 begins, SIGUSR2 ends and writes FILE.

So that the profile holds what calls cost, without the start.
"""

import cProfile
import signal
import sys
import time

from broker.cli import main


def profiled(file: str) -> None:
    """Run the command line under signals that switch the profiler."""
    # CPU time: what others do on the machine must not count.
    profile = cProfile.Profile(time.thread_time)

    def finish(*_: object) -> None:
        profile.disable()
        profile.dump_stats(file)

    signal.signal(signal.SIGUSR1, lambda *_: profile.enable())
    signal.signal(signal.SIGUSR2, finish)
    main()


if __name__ == "__main__":
    profiled(sys.argv.pop(1))
