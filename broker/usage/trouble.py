"""What keeps something from its work: said in the log when it begins, and once more when it is over."""

import logging


class Trouble:
    """`begins`: what is said, with `%s` for why; `ends`: what is said when it is over."""

    def __init__(self, log: logging.Logger, begins: str, ends: str) -> None:
        self._log = log
        self._begins = begins
        self._ends = ends
        self.why = ""
        """"" while all is well."""

    def begin(self, why: str) -> None:
        """It does not work. Another reason than before is no news."""
        if not self.why:
            self._log.error(self._begins, why)
        self.why = why

    def end(self) -> None:
        """It works."""
        if self.why:
            self._log.info(self._ends)
        self.why = ""
