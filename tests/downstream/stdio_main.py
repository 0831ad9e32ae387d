"""`python stdio_main.py CONFIG`: a broker behind its stdio front, as a host starts it."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from broker.app import Broker, run, run_async
from broker.config import load
from broker.downstream.stdio import StdioFront


async def front(broker: Broker) -> None:
    await StdioFront(broker.engine, broker.caller.learn, lambda: broker.drain).serve()


async def main() -> None:
    await run(Broker(load(Path(sys.argv[1]), os.environ), waits_for_caller=True), front)


if __name__ == "__main__":
    run_async(main)
