"""What a dead process has left is found, or looked for again."""

import subprocess
import sys

from tests.hostile.harness import needs_proc
from tests.peers import ROOT

WITHOUT_A_DESCRIPTOR = """
import os, resource, signal
from broker.workers.orphans import end_others, has_others

child = os.fork()
if not child:
    signal.pause()
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
print(has_others({child}), end_others({child}))
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
print(has_others({child}), has_others(()), end_others(()))
while end_others(()):
    pass
print(has_others(()))
"""


@needs_proc
def test_F100_who_cannot_look_for_want_of_a_descriptor_takes_it_that_something_is_left() -> None:
    program = [sys.executable, "-c", WITHOUT_A_DESCRIPTOR]
    done = subprocess.run(program, capture_output=True, cwd=ROOT, timeout=60, text=True)
    assert (done.stdout.splitlines(), done.stderr) == (["True True", "False True True", "False"], "")
