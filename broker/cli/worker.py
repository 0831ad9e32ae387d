"""One of the workers of `serve --workers N`, as `broker.workers.supervisor` starts it.

python -m broker.cli.worker ASSIGNMENT      ASSIGNMENT: JSON, see `broker.workers.assignment`
"""

import sys

from broker.cli import told
from broker.cli.serving import serve_as_worker
from broker.workers.assignment import Assignment

if __name__ == "__main__":
    told(lambda: sys.exit(serve_as_worker(Assignment.read(sys.argv[1]))))
