"""SP-70..SP-73: which tokens are good. Every other one is 401, and all of those sound the same."""

import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clock import FakeClock
from broker.core.caller import Caller, Role
from broker.core.directory import Directory, Membership, Organization, Team
from broker.core.grants import organization_level, team_level
from broker.identity.admission import Admission, Forbidden, Unauthorized, Unverifiable
from broker.identity.credential import Credential, credential_of
from broker.identity.issuer import TokenAuthenticator, Trust
from broker.identity.jwk import KeySet
from broker.identity.key_sets import StaticKeys
from broker.identity.placing import ClaimRules, place
from broker.identity.supplies import Supplies
from broker.identity.token import read, scopes_of, texts
from tests.identity.asking import Ask, Told
from tests.identity.issuer import AUDIENCE, NOW, Issuer, jwk_of, new_key, pem_of, segment

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
ISSUER = Issuer.new()
RULES = ClaimRules(ISSUER.url, organization="acme")


def directory(*teams: str, memberships: tuple[Membership, ...] = ()) -> Directory:
    made = {name: Team(name, team_level("acme", name)) for name in teams}
    return Directory({"acme": Organization("acme", organization_level("acme"), made)}, memberships)


def authenticator(
    issuer: Issuer = ISSUER,
    rules: ClaimRules = RULES,
    found: Directory | None = None,
    jwks: dict[str, Any] | None = None,
    clock: FakeClock | None = None,
    scopes: tuple[str, ...] = (),
    allowed: tuple[str, ...] = ALGORITHMS,
    silence: float = 0.0,
) -> TokenAuthenticator:
    keys = StaticKeys(KeySet.of(issuer.jwks if jwks is None else jwks, allowed))
    everybody = directory("data", "ops") if found is None else found
    trust = Trust(rules, frozenset({AUDIENCE}), scopes)
    supplies = Supplies(clock or FakeClock(NOW), Told(lambda: everybody), lambda: None, lambda: silence)
    return TokenAuthenticator(trust, keys, supplies)


async def admitted(text: str, **how: Any) -> Admission | None:
    credential = credential_of(Ask.bearer(text))
    assert credential is not None
    found = await authenticator(**how).admit(credential)
    return None if found is None else found[0]


async def caller_of(text: str, **how: Any) -> Caller:
    found = await admitted(text, **how)
    assert found is not None
    return found.caller


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_of_every_asymmetric_algorithm_is_good(algorithm: str) -> None:
    issuer = Issuer.new(algorithm=algorithm)
    assert await caller_of(issuer.token(), issuer=issuer) == Caller(
        "jwt:https://login.example ada", "acme", expires=NOW + 600
    )


CHANGES: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "https://other.example/mcp"},
    "an audience that is longer": {"aud": AUDIENCE + "/x"},
    "an audience that is shorter": {"aud": AUDIENCE[:-1]},
    "no audience": {"aud": None},
    "an empty list of audiences": {"aud": []},
    "a list of other audiences": {"aud": ["https://other.example", {}, 1]},
    "an object for an audience": {"aud": {AUDIENCE: True}},
    "expired": {"exp": NOW - 1},
    "expired just now": {"exp": NOW},
    "no expiry": {"exp": None},
    "an expiry that is a text": {"exp": str(NOW + 60)},
    "an expiry that is true": {"exp": True},
    "an expiry that is endless": {"exp": 1e300},
    "an expiry before all time": {"exp": -1},
    "not before a time to come": {"nbf": NOW + 61},
    "nbf that is a text": {"nbf": "0"},
    "issued in a time to come": {"iat": NOW + 61},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "a subject with a line break": {"sub": "ada\nadmin"},
    "a subject that is a number": {"sub": 7},
    "an endless subject": {"sub": "x" * 257},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
async def test_SP70_a_token_with_a_wrong_claim_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Unauthorized):
        await admitted(ISSUER.token(**changes))


async def test_clocks_may_differ_by_a_minute_for_a_fresh_token_but_an_old_one_has_expired() -> None:
    assert await admitted(ISSUER.token(nbf=NOW + 59, iat=NOW + 59)) is not None
    assert await admitted(ISSUER.token(exp=NOW + 1)) is not None
    assert await admitted(ISSUER.token(aud=["x", AUDIENCE])) is not None


def forged() -> dict[str, Callable[[], str]]:
    good = ISSUER.token()
    head, body, signature = good.split(".")
    claims = ISSUER.claims()
    public = pem_of(ISSUER.keys["one"][0])
    stranger = Issuer.new()
    twice = json.dumps(claims).encode()[:-1] + b', "sub": "admin"}'

    def hmac_with(secret: bytes, **header: Any) -> str:
        signer = jwt.get_algorithm_by_name("HS256")
        signed = f"{segment({'alg': 'HS256', 'typ': 'JWT', **header})}.{segment(claims)}"
        return f"{signed}.{segment(signer.sign(signed.encode(), secret))}"

    def with_header(**changes: Any) -> str:
        """The header is changed, and signed again with the good key."""
        key = ISSUER.keys["one"][0]
        signed = f"{segment({'alg': 'ES256', 'kid': 'one', **changes})}.{segment(claims)}"
        return f"{signed}.{segment(jwt.get_algorithm_by_name('ES256').sign(signed.encode(), key))}"

    return {
        "alg none, no signature": lambda: f"{segment({'alg': 'none'})}.{segment(claims)}.AA",
        "alg None": lambda: with_header(alg="None"),
        "alg nOnE": lambda: with_header(alg="nOnE"),
        "alg left out": lambda: with_header(alg=None),
        "alg a list": lambda: with_header(alg=["ES256"]),
        "HS256 with the public key": lambda: hmac_with(public, kid="one"),
        "HS256 with the public key, no kid": lambda: hmac_with(public),
        "HS256 with an empty secret": lambda: hmac_with(b"", kid="one"),
        "another algorithm of the family": lambda: with_header(alg="ES384"),
        "an algorithm of another family": lambda: with_header(alg="RS256"),
        "a key of a stranger under our kid": lambda: stranger.token(),
        "an unknown kid": lambda: with_header(kid="two"),
        "a kid that is a path": lambda: with_header(kid="../../../../dev/null"),
        "a kid that is a URL": lambda: with_header(kid="https://evil.example/key"),
        "a kid that is SQL": lambda: with_header(kid="' UNION SELECT 'x"),
        "a kid that is a number": lambda: with_header(kid=1),
        "an empty kid": lambda: with_header(kid=""),
        "a kid without end": lambda: with_header(kid="k" * 300),
        "its own key in the header": lambda: stranger.sign(
            claims, jwk=jwk_of(stranger.keys["one"][0], "ES256"), jku="https://evil.example/jwks"
        ),
        "an extension that must be understood": lambda: with_header(crit=["x"], x=1),
        "an unencoded payload": lambda: with_header(b64=False, crit=["b64"]),
        "a logout token": lambda: with_header(typ="logout+jwt"),
        "a DPoP proof": lambda: with_header(typ="dpop+jwt"),
        "typ that is a number": lambda: with_header(typ=1),
        "a signature that is cut": lambda: f"{head}.{body}.{signature[:-2]}",
        "a signature of nothing": lambda: f"{head}.{body}.AA",
        "a signature with a bit flipped": lambda: f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}",
        "claims of somebody else under a good signature": lambda: (
            f"{head}.{segment(ISSUER.claims(sub='admin'))}.{signature}"
        ),
        "claims with two subjects": lambda: f"{head}.{segment(twice)}.{signature}",
        "claims that are a list": lambda: f"{head}.{segment([claims])}.{signature}",
        "claims that are nested deep": lambda: f"{head}.{segment(b'[' * 5000)}.{signature}",
        "a header that is no JSON": lambda: f"{segment(b'{')}.{body}.{signature}",
        "a header that is no base64": lambda: f"A.{body}.{signature}",
    }


@pytest.mark.parametrize("make", forged().values(), ids=forged().keys())
async def test_SP70_a_forged_token_is_refused(make: Callable[[], str]) -> None:
    with pytest.raises(Unauthorized):
        await admitted(make())


async def test_a_good_token_made_by_the_same_means_is_admitted() -> None:
    """The forgeries above are refused for what is wrong with them, and not for how they are made."""
    claims, key = ISSUER.claims(), ISSUER.keys["one"][0]
    for header in (
        {},
        {"typ": "JWT"},
        {"typ": "at+JWT"},
        {"typ": "application/at+jwt"},
        {"jku": "https://evil.example"},
    ):
        signed = f"{segment({'alg': 'ES256', 'kid': 'one', **header})}.{segment(claims)}"
        text = f"{signed}.{segment(jwt.get_algorithm_by_name('ES256').sign(signed.encode(), key))}"
        assert (await caller_of(text)).principal == "jwt:https://login.example ada"


@pytest.mark.parametrize("issuer", ["https://login.example/", "https://LOGIN.example", "https://evil.example", "", 1])
async def test_a_token_of_another_issuer_is_not_ours(issuer: Any) -> None:
    """Issuers are compared as they are, never normalised; whose the token is, the next one is asked."""
    text = ISSUER.token(iss=issuer) if issuer != 1 else None
    if text is None:
        with pytest.raises(Unauthorized):
            await admitted(ISSUER.token(iss=None))
    else:
        assert await admitted(text) is None


@pytest.mark.parametrize("text", ["mcpb_x", "a.b", "a.b.c.d", "a..c", "x" * 100])
async def test_what_is_no_token_is_for_the_next(text: str) -> None:
    assert await admitted(text) is None


async def test_a_token_comes_as_a_bearer_token_only() -> None:
    credential = Credential(ISSUER.token(), is_bearer=False)
    assert await authenticator().admit(credential) is None


def sets() -> dict[str, dict[str, Any]]:
    key = ISSUER.keys["one"][0]
    good = jwk_of(key, "ES256", kid="one")
    private = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(key))
    return {
        "for encryption": {**good, "use": "enc"},
        "for signing only": {**good, "key_ops": ["sign"]},
        "key_ops that are no list": {**good, "key_ops": "verify"},
        "for another algorithm": {**good, "alg": "ES384"},
        "its private half": {**private, "kid": "one"},
        "an unknown curve": {**good, "crv": "P-257"},
        "an unknown type": {**good, "kty": "XX"},
        "no point of the curve": {**good, "x": good["y"], "y": good["x"]},
        "no text for a number": {**good, "x": 1},
        "symmetric": {"kty": "oct", "kid": "one", "k": segment(pem_of(key)), "alg": "HS256"},
    }


@pytest.mark.parametrize("item", sets().values(), ids=sets().keys())
async def test_a_key_that_must_not_be_trusted_is_left_out(item: dict[str, Any]) -> None:
    with pytest.raises(Unauthorized):
        await admitted(ISSUER.token(), jwks={"keys": [item, 1, [], None]})


async def test_a_short_rsa_key_is_left_out() -> None:
    issuer = Issuer("https://login.example", {"one": (new_key("RS256", 1024), "RS256")})
    with pytest.raises(Unauthorized), pytest.warns(jwt.InsecureKeyLengthWarning):
        await admitted(issuer.token(), issuer=issuer)


async def test_an_algorithm_that_the_operator_did_not_name_is_refused() -> None:
    with pytest.raises(Unauthorized):
        await admitted(ISSUER.token(), allowed=("RS256", "EdDSA"))


async def test_a_token_without_a_kid_needs_a_set_without_a_choice() -> None:
    lone = Issuer("https://login.example", {"one": ISSUER.keys["one"]})
    bare = jwt.encode(lone.claims(), lone.keys["one"][0], "ES256")
    assert await admitted(bare, issuer=lone) is not None
    two = Issuer("https://login.example", {"one": ISSUER.keys["one"], "two": (new_key("ES256"), "ES256")})
    with pytest.raises(Unauthorized):
        await admitted(bare, issuer=two)


@given(data=st.data())
async def test_a_token_changed_in_any_place_is_never_somebody(data: st.DataObject) -> None:
    good = ISSUER.token()
    place = data.draw(st.integers(0, len(good) - 1))
    char = data.draw(st.sampled_from("ABCabc019-_."))
    text = good[:place] + char + good[place + 1 :]
    try:
        found = await admitted(text)
    except Unauthorized:
        return
    # The last character of a part carries bits that mean nothing: the same signature can be spelled in several ways.
    assert found is None or text.split(".")[:2] == good.split(".")[:2]


# -- claims and places ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "team"),
    [
        (["ops", "data"], "data"),
        ("ops", "ops"),
        (["nobody", "ops", 7, None], "ops"),
    ],
)
async def test_the_first_team_of_the_directory_that_the_token_names_counts(claim: Any, team: str) -> None:
    rules = ClaimRules(ISSUER.url, organization="acme", team_claim="groups")
    assert (await caller_of(ISSUER.token(groups=claim), rules=rules)).team == team


@pytest.mark.parametrize("claim", [None, [], "", ["nobody"], {"data": True}, 7, "data ops", "DATA"])
async def test_who_has_no_team_where_teams_are_claimed_has_no_place(claim: Any) -> None:
    """Outside of all teams a user would have what the organization allows, which is more than any team."""
    rules = ClaimRules(ISSUER.url, organization="acme", team_claim="groups")
    with pytest.raises(Forbidden):
        await admitted(ISSUER.token(groups=claim), rules=rules)


async def test_F94_a_place_that_only_the_store_could_know_is_503_while_it_is_down() -> None:
    rules = ClaimRules(ISSUER.url, organization_claim="org", team_claim="groups")
    good, unknown = ISSUER.token(org="acme", groups="data"), ISSUER.token(org="made-at-run-time", groups="data")
    assert (await caller_of(good, rules=rules, silence=5.0)).team == "data"
    with pytest.raises(Unverifiable):
        await admitted(unknown, rules=rules, silence=5.0)
    with pytest.raises(Forbidden):
        await admitted(unknown, rules=rules)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["acme", "data", "ops", "other", "", "admin"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data", "a", "roles"]), inner),
    max_leaves=6,
)


@given(
    claims=st.dictionaries(st.sampled_from(["org", "groups", "roles", "a"]), _JSON),
    path=st.sampled_from(["groups", "a.data", "a"]),
)
def test_a_token_never_places_anybody_where_the_directory_has_no_place(claims: dict[str, Any], path: str) -> None:
    """Nor, where teams are claimed, outside of them; nor in a role that the configuration does not map."""
    found = directory("data", "ops")
    rules = ClaimRules(
        ISSUER.url, organization_claim="org", team_claim=path, role_claim="roles", roles={"data": Role.TEAM_ADMIN}
    )
    caller = place({**claims, "sub": "ada", "exp": NOW + 9}, rules, found)
    if caller is not None:
        assert caller.organization == "acme"
        assert caller.team in ("data", "ops")
        assert caller.team in texts(claims, path)
        assert caller.role in (Role.MEMBER, Role.TEAM_ADMIN)
        assert caller.principal == "jwt:https://login.example ada"


async def test_a_claim_is_found_by_its_name_or_by_its_path() -> None:
    claims = {
        "realm_access": {"roles": ["a", "b"]},
        "https://acme.dev/groups": ["c"],
        "a.b": "literal",
        "a": {"b": "x"},
    }
    assert texts(claims, "realm_access.roles") == ("a", "b")
    assert texts(claims, "https://acme.dev/groups") == ("c",)
    assert texts(claims, "a.b") == ("literal",)
    assert texts(claims, "a.b.c") == texts(claims, "no") == texts(claims, "realm_access") == ()


@pytest.mark.parametrize(
    ("claim", "place"), [("acme", "acme"), (["acme"], "acme"), ("other", None), (["acme", "b"], None)]
)
async def test_an_organization_that_is_claimed_must_be_one_that_exists(claim: Any, place: str | None) -> None:
    rules = ClaimRules(ISSUER.url, organization_claim="org")
    if place is None:
        with pytest.raises(Forbidden):
            await admitted(ISSUER.token(org=claim), rules=rules)
    else:
        assert (await caller_of(ISSUER.token(org=claim), rules=rules)).organization == place


async def test_roles_come_from_claims_that_are_mapped_and_from_memberships() -> None:
    rules = ClaimRules(ISSUER.url, "acme", role_claim="roles", roles={"lead": Role.TEAM_ADMIN, "root": Role.ORG_ADMIN})
    assert (await caller_of(ISSUER.token(roles=["admin", "org-admin"]), rules=rules)).role is Role.MEMBER
    assert (await caller_of(ISSUER.token(roles=["root", "lead"]), rules=rules)).role is Role.ORG_ADMIN
    member = Membership("jwt:https://login.example ada", "acme", "ops", Role.TEAM_ADMIN)
    found = directory("data", "ops", memberships=(member,))
    caller = await caller_of(ISSUER.token(), found=found)
    assert (caller.team, caller.role) == ("ops", Role.TEAM_ADMIN)
    stranger = await caller_of(ISSUER.token(sub="bob"), found=found)
    assert (stranger.team, stranger.role) == ("", Role.MEMBER)


async def test_SP76_a_scope_that_is_missing_is_named_with_all_that_are_needed() -> None:
    needed = ("mcp:read", "mcp:call")
    for good in ({"scope": "mcp:call x mcp:read"}, {"scp": ["mcp:read", "mcp:call"]}, {"scp": "mcp:read mcp:call"}):
        assert (await caller_of(ISSUER.token(**good), scopes=needed)).scopes >= set(needed)
    for bad in ({}, {"scope": "mcp:read"}, {"scope": ["mcp:callmcp:read"]}, {"scope": "MCP:READ MCP:CALL"}):
        with pytest.raises(Forbidden) as refused:
            await admitted(ISSUER.token(**bad), scopes=needed)
        assert refused.value.scopes == needed


async def test_I08_what_was_admitted_ends_with_the_token_and_with_its_place() -> None:
    clock, found = FakeClock(NOW), [directory("data")]
    rules = ClaimRules(ISSUER.url, "acme", team_claim="groups")
    keys = StaticKeys(KeySet.of(ISSUER.jwks, ALGORITHMS))
    supplies = Supplies(clock, Told(lambda: found[0]), lambda: None)
    made = TokenAuthenticator(Trust(rules, frozenset({AUDIENCE})), keys, supplies)

    async def admit() -> Admission:
        credential = credential_of(Ask.bearer(ISSUER.token(groups="data")))
        assert credential is not None
        answer = await made.admit(credential)
        assert answer is not None
        assert answer[1] <= 60
        return answer[0]

    first = await admit()
    found[0] = directory("ops", "data")
    assert first.is_in_force()
    found[0] = directory("ops")
    assert not first.is_in_force()
    found[0] = directory("data")
    second = await admit()
    clock.advance(599)
    assert second.is_in_force()
    clock.advance(1)
    assert not second.is_in_force()


def test_what_is_read_of_a_token_is_bounded() -> None:
    assert read("x" * 10) is None
    assert scopes_of({"scope": "a  b", "scp": ["c", 1]}) == {"a", "b", "c"}
