"""How many of something all workers have together, by name: what `downstream/room.py` asks for."""

from collections import Counter
from contextlib import AbstractContextManager
from typing import Final

from broker.workers.board import Board, BoardStuck

SLACK: Final = 16
"""One part in so many makes no difference: else connections that come by the thousand would be taken one by one."""
MANY: Final = 1 << 40
"""What is said where nothing can be counted: whoever asks whether there is room for one more is refused."""


class _Tolerant(AbstractContextManager[None]):
    """The lock of the board, or none: what follows sees that by itself."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._has: list[bool] = []

    def __enter__(self) -> None:
        try:
            self._board.__enter__()
        except BoardStuck:
            self._has.append(False)
        else:
            self._has.append(True)

    def __exit__(self, *_: object) -> None:
        if self._has.pop():
            self._board.__exit__()


class SharedHeld:
    """See the module. Nothing here raises: it is asked where connections are accepted."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.lock: AbstractContextManager[None] = _Tolerant(board)
        self._owed: Counter[bytes] = Counter()
        """Changes that could not be made yet."""

    def number(self, kind: str, name: str) -> int:
        """What all workers have."""
        try:
            with self._board:
                at = self._board.find_tally(self._board.digest("held", kind, name), make=False)
                return self._board.total(at) if at else 0
        except BoardStuck:
            return MANY

    def add(self, kind: str, name: str, number: int) -> bool:
        """So many more; whether they could be counted. Fewer always can: at last with the next change."""
        digest = self._board.digest("held", kind, name)
        try:
            with self._board:
                self._pay()
                return self._change(digest, number) or number < 0
        except BoardStuck:
            if number < 0:
                self._owed[digest] += number
            return number < 0

    def is_ahead(self, kind: str, name: str) -> bool:
        """Whether this worker has more than another one, beyond what makes no difference."""
        try:
            with self._board:
                at = self._board.find_tally(self._board.digest("held", kind, name), make=False)
                amounts = [one.amount for one in self._board.columns(at)] if at else []
        except BoardStuck:
            return False
        least = min(amounts, default=0)
        return bool(amounts) and amounts[self._board.worker.number - 1] > least + least // SLACK

    def _pay(self) -> None:
        while self._owed:
            self._change(*self._owed.popitem())

    def _change(self, digest: bytes, number: int) -> bool:
        at = self._board.find_tally(digest, make=number > 0)
        if at:
            mine = self._board.mine(at)
            mine.amount = max(0, mine.amount + number)
            self._board.put(at, mine)
        return at > 0
