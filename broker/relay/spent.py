"""States of parked and sealed calls that were used: each is good once."""

from collections import defaultdict
from typing import Final

from broker.core.seal import Claims, Unsealable
from broker.errors import BrokerError

MAX_SPENT: Final = 20_000
"""Used states of one principal that have not expired: 33 answered questions a second, all the time; 4 MB, and as much
for those that were admitted."""


class SpentStates:
    """Per principal, since each can only fill its own; a state is forgotten when it would have expired."""

    def __init__(self) -> None:
        self._expiry: defaultdict[str, dict[str, float]] = defaultdict(dict)
        """Wall-clock seconds, by principal and serial."""

    def __len__(self) -> int:
        return sum(map(len, self._expiry.values()))

    def has(self, state: Claims) -> bool:
        """Whether it was used."""
        return state.serial in self._expiry.get(state.principal, ())

    def add(self, state: Claims) -> None:
        """It is used now.

        Raises: Unsealable, if it was before; BrokerError, if its principal has used too many for one more to be known.
        """
        if self.has(state):
            raise Unsealable("used before")
        own = self._expiry[state.principal]
        if len(own) >= MAX_SPENT:
            raise BrokerError(f"more than {MAX_SPENT} questions were answered in short time: wait some minutes")
        own[state.serial] = state.expires

    def take_back(self, state: Claims) -> None:
        """Nothing was done with it."""
        self._expiry[state.principal].pop(state.serial, None)

    def forget(self, wall: float) -> None:
        """Those that have expired by themselves, and principals that have no others."""
        for principal, own in tuple(self._expiry.items()):
            # In the order of their use, and so nearly in that of their end: what is left behind goes a little later.
            while own and own[first := next(iter(own))] <= wall:
                del own[first]
            if len(own) >= MAX_SPENT:  # the first may end long after those behind it, if the wall clock was set back
                own = self._expiry[principal] = {serial: end for serial, end in own.items() if end > wall}
            if not own:
                del self._expiry[principal]
