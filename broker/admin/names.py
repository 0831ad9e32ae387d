"""What may be called what. Raises: Invalid, all of them."""

from typing import Final

from broker.admin.errors import Invalid
from broker.config import Fault
from broker.config.rules import word
from broker.errors import printable

MAX_PRINCIPAL: Final = 512
"""Characters. An issuer's URL and a subject fit; it is part of a database key."""


def good_name(what: str, name: str) -> str:
    """Of an organization, a team or a key: as in the file."""
    try:
        return word(name)
    except Fault as fault:
        raise Invalid(f"{what} {printable(name, 64)!r}: {fault.message}. {fault.remedy}".rstrip()) from None


def good_principal(principal: str) -> str:
    """Of a user of an issuer, or of a key of the database."""
    if not principal.startswith(("jwt:", "key:")) or not principal.isprintable() or len(principal) > MAX_PRINCIPAL:
        raise Invalid("a member is jwt:<issuer> <subject>, or key:<id>")
    return principal
