"""How another process of this broker is started: with this interpreter, and this very code."""

import sys
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parents[2]
_BOOT: Final = (
    "import runpy, sys; root, module = sys.argv[1:3]; root in sys.path or sys.path.insert(0, root); "
    "del sys.argv[1:3]; runpy.run_module(module, run_name='__main__', alter_sys=True)"
)


def command(module: str, text: str) -> list[str]:
    """The command that runs a module with one argument. A file of the directory we are in is never taken for ours."""
    return [sys.executable, "-P", "-c", _BOOT, str(_ROOT), module, text]
