"""What `completion/complete` is to complete: its reference is an entry like any other."""

from typing import Any

from broker.core.catalog import Catalog
from broker.core.request import Kind
from broker.errors import InvalidParams


def referenced(reference: Any, catalog: Catalog) -> tuple[Kind, str]:
    """The kind of what a reference means, and the member of it that has the public name. Raises: InvalidParams."""
    match reference:
        case {"type": "ref/prompt", "name": str()}:
            return Kind.PROMPT, "name"
        case {"type": "ref/resource", "uri": str(uri)}:
            is_template = catalog.lookup(Kind.TEMPLATE, uri) is not None
            return Kind.TEMPLATE if is_template else Kind.RESOURCE, "uri"
        case _:
            raise InvalidParams("ref must be a ref/prompt with a name or a ref/resource with a uri")
