"""The section `identity:`: which credentials are taken, and what they say of a caller."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from broker.config import rules
from broker.config.access import RuleSettings
from broker.config.problem import Fault
from broker.config.strict import Freeze, Lists, Masked, Strictest, hidden

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
ALGORITHMS: tuple[Algorithm, ...] = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
"""All of them are asymmetric: who can check a token cannot make one."""


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


_Claim = Annotated[str, AfterValidator(rules.claim)]
_Scope = Annotated[str, AfterValidator(rules.scope)]


class JwtIssuer(Strictest):
    """An issuer whose tokens are taken. Its order among others means nothing: `iss` of a token says whose it is."""

    issuer: Annotated[str, AfterValidator(rules.issuer)] = Field(
        description="The issuer, exactly as its tokens name it: an https URL."
    )
    audience: Annotated[
        tuple[Annotated[str, AfterValidator(rules.single_line)], ...],
        Lists,
        BeforeValidator(_listed),
        Field(min_length=1),
    ] = Field(description="Whom tokens must be made for: a text, or a list of texts of which one must be named.")
    organization: Annotated[str, AfterValidator(rules.word)] | None = Field(
        default=None, description="The organization of everybody who comes with its tokens."
    )
    organization_claim: _Claim | None = Field(
        default=None, description="The claim that names the organization instead."
    )
    team_claim: _Claim | None = Field(
        default=None,
        description="The claim that names teams; the first of the organization's teams among them counts. Who is in "
        "none is refused.",
    )
    role_claim: _Claim | None = Field(default=None, description="The claim that `roles` is looked up by.")
    roles: Annotated[
        Mapping[str, Literal["member", "team-admin", "org-admin", "admin"]],
        *Freeze,
    ] = Field(
        default={}, validate_default=True, description="Value of the claim -> role. The highest that is named counts."
    )
    required_scopes: Annotated[tuple[_Scope, ...], Lists] = Field(
        default=(), description="Scopes that every token must have."
    )
    scopes: Annotated[Mapping[_Scope, Annotated[tuple[RuleSettings, ...], Lists]], *Freeze] = Field(
        default={},
        validate_default=True,
        description="Scope -> rules of what it allows. With it, a token may use what one of its scopes allows, within "
        "what its organization and team allow.",
    )
    jwks_url: Annotated[str, AfterValidator(rules.fetched_url)] | None = Field(
        default=None, description="Where its keys are. null: where its metadata says."
    )
    keys: Annotated[tuple[Annotated[Mapping[str, Any], AfterValidator(rules.public_key), *Freeze], ...], Lists] = Field(
        default=(), description="Its public keys as JWKs, in place of fetching them."
    )
    algorithms: Annotated[tuple[Algorithm, ...], Lists, Field(min_length=1)] = Field(
        default=ALGORITHMS, description="Signatures that are taken. None of them is symmetric."
    )
    allow_private: bool = Field(
        default=False,
        description="true: it may be at a private or loopback address, there also without https.",
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> "JwtIssuer":
        if (self.organization is None) == (self.organization_claim is None):
            raise Fault("needs either organization or organization_claim", "Say where its users belong.")
        if bool(self.roles) != (self.role_claim is not None):
            raise Fault("role_claim and roles need each other", "Give both, or none.")
        if self.keys and self.jwks_url is not None:
            raise Fault("has keys and jwks_url", "Remove one of them.")
        insecure = [url for url in (self.issuer, self.jwks_url or "") if url.startswith("http:")]
        if insecure and not self.allow_private:
            raise Fault("an issuer must begin with https://", "For one on this machine add allow_private: true.")
        return self


class IdentitySettings(Strictest):
    public_url: Annotated[str, AfterValidator(rules.public_url)] | None = Field(
        default=None, description="Where callers reach the broker, without a path: scheme://host[:port]."
    )
    key_secret: Annotated[Masked, BeforeValidator(hidden), AfterValidator(rules.key_secret)] | None = Field(
        default=None,
        description="What API keys are hashed with, 32 characters or more. null: a file in the state directory.",
    )
    store_grace: float = Field(
        default=60,
        ge=0,
        le=86_400,
        description="Seconds for which stored keys stay good while the store is down. Others are answered 503 then.",
    )
    jwt: Annotated[tuple[JwtIssuer, ...], Lists] = Field(
        default=(), description="Issuers of tokens (OAuth 2, OpenID Connect)."
    )

    @model_validator(mode="after")
    def _has_no_conflicts(self) -> "IdentitySettings":
        names = [one.issuer for one in self.jwt]
        if len(set(names)) < len(names):
            raise Fault("the same issuer is given twice", "Remove one of them.")
        if self.jwt and self.public_url is None:
            raise Fault("jwt needs public_url", "Say where callers reach the broker, as in https://broker.example.com.")
        return self
