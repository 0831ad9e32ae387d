"""`python -m tests.soak --seconds S --callers N --eras E --seed X`: cross-talk. Exit status 1 if there was any.

`--callers` may be repeated: one soak after the other. Without it: 2 callers, then 200. At the end, organizations that
share a broker, for as long.
"""

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from tests.soak import tenants
from tests.soak.run import ERAS, soak

CALLERS = (2, 200)
TENANTS = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--callers", type=int, action="append")
    parser.add_argument("--eras", choices=ERAS, default="mixed")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    options = parser.parse_args()
    status = 0
    for callers in options.callers or CALLERS:
        with tempfile.TemporaryDirectory() as directory:
            given = {"seconds": options.seconds, "callers": callers, "seed": options.seed, "eras": options.eras}
            report = asyncio.run(soak(Path(directory), **given))
        print(report.text(), flush=True)
        status |= bool(report.findings.broken or report.left_behind())
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(tenants.soak(Path(directory), tenants=TENANTS, seconds=options.seconds, seed=options.seed))
    print(f"{TENANTS} organizations: {found.text()}", *found.foreign, sep="\n", flush=True)
    return status | bool(found.foreign)


if __name__ == "__main__":
    sys.exit(main())
