"""What the models of all sections are made of."""

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    InstanceOf,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    Strict,
    Tag,
    WithJsonSchema,
    WrapSerializer,
)

from broker.config.secret import MASK, Secret
from broker.core.shape import is_object

TAG: str = "\0"
"""Begins the tags of our unions: pydantic puts them into the path of an error, and no key in a file begins so."""


def _text_tag(value: object) -> str:
    return TAG + ("secret" if isinstance(value, Secret) else "plain")


def _frozen(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(value))


def _dumped(value: Mapping[str, Any], dump: SerializerFunctionWrapHandler) -> Any:
    return dump(dict(value))


def hidden(value: object) -> object:
    """Also what stands in the file as it is: most tokens in people's files are written out."""
    return Secret(value) if isinstance(value, str) else value


Masked = Annotated[
    InstanceOf[Secret], PlainSerializer(lambda _: MASK, return_type=str), WithJsonSchema({"type": "string"})
]
"""A Secret; dumps mask it. With `BeforeValidator(hidden)` in front, a text becomes one."""
SecretText: TypeAlias = Annotated[
    Annotated[str, Tag(TAG + "plain")] | Annotated[Masked, Tag(TAG + "secret")], Discriminator(_text_tag)
]
"""For pydantic fields: a text, or a Secret if a reference brought it in; dumps mask the latter."""


class Strictest(BaseModel):
    """No conversion, no unknown field, no change after construction, no input in an error's text."""

    # defer_build: a section is compiled as a part of the whole, once, and not by itself too.
    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
        validate_default=False,
        defer_build=True,
    )


Section = TypeVar("Section", bound=Strictest)


_NO_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"


def compile_once(section: type[Strictest]) -> None:
    """Make it ready to check, without plugins of pydantic: who is installed beside the broker is not shown secrets.

    To look for plugins took a third of this, too. Before the first use, which would compile it as well.
    """
    if section.__pydantic_complete__:
        return
    before = os.environ.get(_NO_PLUGINS)
    os.environ[_NO_PLUGINS] = "1"
    try:
        section.model_rebuild()
    finally:
        if before is None:
            del os.environ[_NO_PLUGINS]
        else:
            os.environ[_NO_PLUGINS] = before


def unsaid(section: type[Section]) -> Section:
    """A section that nobody wrote, as a default. It is not checked, so that no section is compiled by itself for it.
    Nobody changes its mappings either.
    """
    given = section.model_construct()
    frozen = {name: _frozen(value) for name, value in given if is_object(value)}
    return section.model_construct(set(), **frozen) if frozen else given


Lists = Strict(False)
"""YAML gives lists, the model keeps tuples."""
Freeze = (AfterValidator(_frozen), WrapSerializer(_dumped))
"""A mapping that nobody changes."""
