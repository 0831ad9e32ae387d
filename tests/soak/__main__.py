"""`python -m tests.soak --seconds S --callers N --seed X`: cross-talk. Exit status 1 if there was any."""

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from tests.soak.run import soak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--callers", type=int, default=200)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        report = asyncio.run(soak(Path(directory), seconds=options.seconds, callers=options.callers, seed=options.seed))
    print(report.text())
    return 1 if report.findings.broken or report.left_behind() else 0


if __name__ == "__main__":
    sys.exit(main())
