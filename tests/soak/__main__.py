"""`python -m tests.soak --seconds S --seed X`: what only time and chance find. Exit status 1 if anything was found.

Most of the time is the storm's: mixed traffic on all fronts while servers, guardrails and files fail at random. The
rest is for cross-talk alone, where nothing fails: 2 callers, then 200, then organizations that share a broker.
`--only` runs one of them; `--callers` may be repeated.
"""

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from tests.soak import tenants
from tests.soak.run import ERAS, soak
from tests.soak.storm import storm

CALLERS = (2, 200)
TENANTS = 4
PEOPLE = 24
ROUND: float = 120
"""Seconds of a round of the storm; after each it is quiet, and the figures must be those of the beginning."""
SHARES = {"storm": 0.85, "cross-talk": 0.1, "tenants": 0.05}


def say(line: str) -> None:
    print(line, flush=True)


def blow(seconds: float, seed: int) -> bool:
    """Whether nothing was found."""
    rounds = max(1, round(seconds / ROUND))
    with tempfile.TemporaryDirectory() as directory:
        report = asyncio.run(storm(Path(directory), seconds=seconds, seed=seed, people=PEOPLE, rounds=rounds, say=say))
    say(report.text())
    return report.is_good


def talk(seconds: float, seed: int, callers: tuple[int, ...], eras: str) -> bool:
    """Likewise."""
    is_good = True
    for count in callers:
        with tempfile.TemporaryDirectory() as directory:
            given = {"seconds": seconds / len(callers), "callers": count, "seed": seed, "eras": eras}
            report = asyncio.run(soak(Path(directory), **given))
        say(report.text())
        is_good &= not (report.findings.broken or report.left_behind())
    return is_good


def share(seconds: float, seed: int) -> bool:
    """Likewise."""
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(tenants.soak(Path(directory), tenants=TENANTS, seconds=seconds, seed=seed))
    say("\n".join([f"{TENANTS} organizations: {found.text()}", *found.foreign]))
    return not found.foreign


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="of all together")
    parser.add_argument("--only", choices=list(SHARES), help="all of the time for this one")
    parser.add_argument("--callers", type=int, action="append", help="of cross-talk")
    parser.add_argument("--eras", choices=ERAS, default="mixed", help="of cross-talk")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    options = parser.parse_args()
    say(f"seed {options.seed}")
    callers = tuple(options.callers or CALLERS)
    parts = {
        "storm": lambda seconds: blow(seconds, options.seed),
        "cross-talk": lambda seconds: talk(seconds, options.seed, callers, options.eras),
        "tenants": lambda seconds: share(seconds, options.seed),
    }
    if options.only:
        return 0 if parts[options.only](options.seconds) else 1
    found = [part(options.seconds * SHARES[name]) for name, part in parts.items()]
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(main())
