"""What the broker says of itself to those who may not come in (SP-74, SP-76, SP-78)."""

import pytest

from broker.identity.admission import Ambiguous, Forbidden, Refusal, TooManyFailures, Unauthorized, Unverifiable
from broker.identity.resource import WELL_KNOWN, Resource

URL = "https://broker.example"
ONE = ("https://login.example", ("mcp:read", "mcp:call"))
WHERE = f'resource_metadata="{URL}{WELL_KNOWN}/mcp"'
NONE, BAD = Unauthorized(has_credential=False), Unauthorized(has_credential=True)


def resource(*issuers: tuple[str, tuple[str, ...]]) -> Resource:
    return Resource.of(URL, issuers, "test")


def test_SP76_a_challenge_names_all_scopes_that_are_needed_and_no_more() -> None:
    found = resource(ONE)
    assert found.challenge(NONE, "/mcp") == f'Bearer realm="mcp-broker", scope="mcp:read mcp:call", {WHERE}'
    lacking = Forbidden("the token lacks a scope", ("mcp:read", "mcp:call"))
    assert found.challenge(lacking, "/mcp") == (
        f'Bearer realm="mcp-broker", error="insufficient_scope", scope="mcp:read mcp:call", {WHERE}'
    )
    document = found.document(WELL_KNOWN)
    assert document is not None
    assert document["scopes_supported"] == ["mcp:read", "mcp:call"]


def test_scopes_of_several_issuers_are_named_where_all_need_the_same() -> None:
    same = resource(ONE, ("https://other.example", ONE[1]))
    assert "mcp:read" in (same.challenge(BAD, "/mcp") or "")
    differ = resource(ONE, ("https://other.example", ("x",)))
    assert differ.challenge(BAD, "/mcp") == f'Bearer realm="mcp-broker", error="invalid_token", {WHERE}'
    document = differ.document(f"{WELL_KNOWN}/sse")
    assert document is not None
    assert document["authorization_servers"] == ["https://login.example", "https://other.example"]
    assert "scopes_supported" not in document


@pytest.mark.parametrize("refusal", [Ambiguous("x"), Forbidden("x"), TooManyFailures(1), Unverifiable()], ids=repr)
def test_who_is_not_helped_by_another_credential_is_not_sent_for_one(refusal: Refusal) -> None:
    assert resource(ONE).challenge(refusal, "/mcp") is None


def test_where_there_is_no_issuer_nobody_is_sent_to_one() -> None:
    found = resource()
    assert found.challenge(NONE, "/mcp") == 'Bearer realm="mcp-broker"'
    assert found.challenge(BAD, "/mcp") == 'Bearer realm="mcp-broker", error="invalid_token"'
    assert found.document(WELL_KNOWN) is None
