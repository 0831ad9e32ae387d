"""Fuzzing that follows coverage: `python -m tests.fuzz.guided EDGE [options of libFuzzer]`, with atheris."""

import importlib
import logging
import sys


def main() -> None:
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["broker.core", "broker.config", "broker.upstream"]):
        edges = importlib.import_module("tests.fuzz.edges").EDGES
    if len(sys.argv) < 2 or sys.argv[1] not in edges:
        raise SystemExit(f"{__doc__}\nEDGE: {', '.join(edges)}")
    edge = edges[sys.argv.pop(1)]
    logging.disable(logging.CRITICAL)
    atheris.Setup(sys.argv, edge)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
