"""What a store can fail with. Every text says what is wrong and what to do; none has a password or a key in it."""


class StoreError(Exception):
    """Something is wrong with the store."""


class StoreUnusable(StoreError):
    """Somebody has to mend it first: it is corrupt, made by a newer broker, or no database at all."""


class StoreUnavailable(StoreError):
    """It cannot be reached or is busy now, and may be well again without anybody doing anything."""


class StoreReadOnly(StoreError):
    """It can be read, but this change cannot be written: the disk is full, or the place read-only."""


class Conflict(StoreError):
    """What was to be made exists already."""
