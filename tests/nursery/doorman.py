"""`python -I -S doorman.py SOCKET ARGV...`: has `python ARGV` run in a fork of the nursery, and ends as it does.

It imports little, since it runs in place of everything that is started.
"""

import contextlib
import json
import os
import signal
import socket
import sys

HANDED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(door: str, argv: list[str]) -> int:
    """The exit status; ends by the signal that the fork ended by."""
    # A signal that comes before there is anybody to hand it to waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDED_ON)
    with socket.socket(socket.AF_UNIX) as nursery:
        nursery.connect(door)
        told = json.dumps({"argv": argv, "cwd": os.getcwd(), "env": dict(os.environ)}).encode()
        socket.send_fds(nursery, [len(told).to_bytes(4, "big")], [0, 1, 2])
        nursery.sendall(told)
        pid = read_number(nursery)
        let_go()
        for number in HANDED_ON:
            signal.signal(number, lambda sent, _: hand_on(pid, sent))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDED_ON)
        status = os.waitstatus_to_exitcode(read_number(nursery))
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    return status


def let_go() -> None:
    """The pipes are the fork's alone: whoever reads them must see their end when it ends."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)


def hand_on(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def read_number(nursery: socket.socket) -> int:
    """Four bytes. An end in place of them is that of the nursery, and ours."""
    got = b""
    while len(got) < 4:
        more = nursery.recv(4 - len(got))
        if not more:
            raise SystemExit("the nursery is gone")
        got += more
    return int.from_bytes(got, "big")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
