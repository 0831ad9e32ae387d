"""`python -m tests.fidelity`: the fidelity matrix as a table. Exit status 1 if anything was lost."""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.fidelity.features import FEATURES
from tests.fidelity.matrix import CELLS, Matrix, table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cells whose name contains this")
    options = parser.parse_args()
    cells = [cell for cell in CELLS if options.only in str(cell)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        matrix = Matrix(Path(directory))
        try:
            matrix.start()
            outcome = asyncio.run(matrix.run(cells))
        finally:
            matrix.close()
    print(table(outcome))
    lost = len(outcome.failures())
    print(f"{len(FEATURES)} features, {len(cells)} cells, {lost} differences, {time.monotonic() - began:.1f} s")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
