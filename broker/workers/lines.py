"""Log lines of a process that does not load the broker."""

import contextlib
import json
import os
import time


class Log:
    """Lines as the workers write them."""

    def __init__(self, *, as_json: bool, level: str) -> None:
        self._as_json = as_json
        self._says_info = level in ("debug", "info")

    def info(self, text: str) -> None:
        """One line, if such are wanted."""
        if self._says_info:
            self._say("INFO", text)

    def warning(self, text: str) -> None:
        """One line."""
        self._say("WARNING", text)

    def _say(self, level: str, text: str) -> None:
        name = "broker.workers.supervisor"
        if self._as_json:
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + "+00:00"
            said = json.dumps({"time": moment, "level": level.lower(), "logger": name, "message": text})
        else:
            said = f"{time.strftime('%H:%M:%S')} {level:<7} {name}: {text}"
        with contextlib.suppress(OSError):  # a host that closed our stderr must not stop us
            os.write(2, f"{said}\n".encode())
