"""How an action ends that is not done. The texts are for whoever asked; `why` is for the journal only."""


class AdminError(Exception):
    """Not done. Nothing was changed."""

    def __init__(self, message: str, why: str = "") -> None:
        super().__init__(message)
        self.why = why or message


class NotFound(AdminError):
    """There is no such thing, or the actor may not see it: one and the same answer, by the same way."""


class NotAllowed(AdminError):
    """The actor may see it, and may not do this."""


class FixedByFile(AdminError):
    """The configuration file defines it: it is changed there."""


class Exists(AdminError):
    """The name is taken."""


class Invalid(AdminError):
    """What was asked for makes no sense: a bad name, rules that are none, a date that has passed."""
