"""I-03: whatever goes wrong with a credential, nobody comes out of it who did not come in."""

import asyncio
import builtins
import logging
import re
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clock import FakeClock
from broker.core.caller import LOCAL, Caller
from broker.core.directory import Directory
from broker.identity import identity as identity_module
from broker.identity.admission import (
    Admission,
    Ambiguous,
    Refusal,
    TooManyFailures,
    Unauthorized,
    Unverifiable,
    always,
)
from broker.identity.credential import Credential, credential_of
from broker.identity.failures import IN_ALL, MAX_ADDRESSES, PER_ADDRESS, WINDOW, Failures
from broker.identity.identity import MAX_VERIFIED, Identity
from broker.identity.key_holders import KeyAuthenticator
from broker.identity.supplies import Supplies
from tests.identity.asking import Ask, Told
from tests.patience import PATIENCE

ADA = Admission(Caller("key:ada", "acme"), always)
Answer = Callable[[Credential], Any]


class Scripted:
    """An authenticator that does what a test says. `asked`: how often."""

    is_source = True

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked = 0

    async def admit(self, credential: Credential) -> tuple[Admission, float] | None:
        self.asked += 1
        found = self.answer(credential)
        return await found if asyncio.iscoroutine(found) else found

    def retire(self) -> None:
        """It remembers nothing."""


def identity(*answers: Answer, clock: FakeClock | None = None) -> Identity:
    return Identity(clock or FakeClock(), [Scripted(answer) for answer in answers], is_private=True)


async def admitted(identity: Identity, ask: Ask) -> Admission:
    return identity.known(ask) or await identity.admit(ask, ask.peer)


def fails(error: BaseException) -> Answer:
    def answer(credential: Credential) -> Any:
        raise error

    return answer


def every_exception() -> list[type[Exception]]:
    found = [one for one in vars(builtins).values() if isinstance(one, type) and issubclass(one, Exception)]
    return [one for one in found if not issubclass(one, Warning | ExceptionGroup | UnicodeError)]


@pytest.mark.parametrize("kind", every_exception(), ids=lambda kind: kind.__name__)
async def test_I03_an_error_of_any_type_is_503_and_quotes_nothing(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    planted = "planted-secret"
    for made in (identity(fails(kind(planted))), identity(lambda _: None, fails(kind(planted)), lambda _: (ADA, 60))):
        with pytest.raises(Unverifiable) as refused:
            await admitted(made, Ask.bearer("token"))
        assert planted not in str(refused.value)
    assert planted not in caplog.text
    assert "a credential could not be verified" in caplog.text


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit()], ids=repr)
async def test_I03_what_ends_the_program_passes(error: BaseException) -> None:
    with pytest.raises(type(error)):
        await admitted(identity(fails(error)), Ask.bearer("token"))


@pytest.mark.parametrize(
    "nonsense",
    [(None, 60), (LOCAL, 60), (True, 60), ({}, 60), ("local", 60), (Caller("x"), 60), ADA, True, LOCAL, 1, (ADA,), ()],
    ids=lambda nonsense: re.sub(r" at 0x\w+", "", repr(nonsense)),  # the same in every process
)
async def test_I03_what_is_no_admission_admits_nobody(nonsense: Any) -> None:
    with pytest.raises(Refusal) as refused:
        await admitted(identity(lambda _: nonsense), Ask.bearer("token"))
    assert refused.value.status in (401, 503)


async def test_I03_when_nobody_says_mine_it_is_401() -> None:
    with pytest.raises(Unauthorized):
        await admitted(identity(lambda _: None, lambda _: None), Ask.bearer("token"))


async def test_I03_a_verification_without_end_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_module, "VERIFY_TIMEOUT", 0.05)
    with anyio.fail_after(PATIENCE), pytest.raises(Unverifiable):
        await admitted(identity(lambda _: anyio.sleep_forever()), Ask.bearer("token"))


async def test_a_bad_credential_is_not_passed_on_to_the_next() -> None:
    made = identity(fails(Unauthorized(has_credential=True)), lambda _: (ADA, 60))
    with pytest.raises(Unauthorized):
        await admitted(made, Ask.bearer("token"))


async def test_an_admission_that_is_not_in_force_admits_nobody() -> None:
    with pytest.raises(Unauthorized):
        await admitted(identity(lambda _: (Admission(ADA.caller, lambda: False), 60)), Ask.bearer("token"))


async def test_F94_a_directory_that_cannot_be_read_admits_nobody() -> None:
    """Neither a key, nor nobody at all as local."""

    def fail() -> Directory:
        raise OSError("planted")

    supplies = Supplies(FakeClock(), Told(fail), lambda: None)
    made = Identity(FakeClock(), [KeyAuthenticator(supplies, 60)], is_private=True)
    for ask in (Ask.of(), Ask.bearer("mcpb_x"), Ask.key("mcpb_x")):
        with pytest.raises(Unverifiable):
            await admitted(made, ask)


async def test_F94_a_store_that_was_never_read_makes_nobody_local() -> None:
    supplies = Supplies(FakeClock(), Told(Directory), lambda: None, lambda: 1.0)
    made = Identity(FakeClock(), [KeyAuthenticator(supplies, 60)], is_private=True)
    with pytest.raises(Unauthorized):
        await admitted(made, Ask.of())


async def test_a_verified_credential_is_not_verified_again_while_it_is_good() -> None:
    clock, valid = FakeClock(), [True]
    scripted = Scripted(lambda _: (Admission(ADA.caller, lambda: valid[0]), 60))
    made = Identity(clock, [scripted], is_private=True)
    for _ in range(3):
        assert (await admitted(made, Ask.bearer("token"))).caller == ADA.caller
    assert scripted.asked == 1
    clock.advance(60)
    await admitted(made, Ask.bearer("token"))
    assert scripted.asked == 2
    valid[0] = False
    with pytest.raises(Unauthorized):
        await admitted(made, Ask.bearer("token"))


async def test_what_is_remembered_is_bounded() -> None:
    made = identity(lambda credential: (Admission(Caller(credential.text), always), 60))
    for number in range(MAX_VERIFIED + 10):
        await admitted(made, Ask.bearer(f"t{number}"))
    assert len(made._verified) == MAX_VERIFIED
    assert made.known(Ask.bearer("t0")) is None
    assert made.known(Ask.bearer("t11")) is not None


@given(st.lists(st.text("ab.", min_size=1, max_size=4), min_size=1, max_size=20))
async def test_I04_nobody_gets_the_caller_of_another_credential(texts: list[str]) -> None:
    made = identity(lambda credential: (Admission(Caller(credential.text), always), 60))
    for text in texts:
        assert (await admitted(made, Ask.bearer(text))).caller.principal == text


def test_a_credential_shows_itself_nowhere() -> None:
    found = credential_of(Ask.bearer("planted-secret"))
    assert found is not None
    assert "planted-secret" not in repr(found)


@pytest.mark.parametrize(
    "query",
    [
        b"access_token=x",
        b"API-KEY=x",
        b"a=1&apiKey=x",
        b"q=mcpb_abc",
        b"%74oken=x",
        b"t%6fken",
        b"&".join([b"a=1"] * 101),
    ],
)
def test_SP75_a_query_that_carries_a_credential_is_refused(query: bytes) -> None:
    with pytest.raises(Ambiguous) as refused:
        credential_of(Ask.of(query=query))
    assert "mcpb" not in refused.value.message


@pytest.mark.parametrize("query", [b"session=abc", b"a", b"monkey=1", b"%zz", b"=", b"&&"])
def test_any_other_query_is_none_of_our_business(query: bytes) -> None:
    assert credential_of(Ask.of(query=query)) is None


async def test_without_a_source_a_private_listener_has_one_caller_and_another_has_none() -> None:
    for ask in (
        Ask.of(),
        Ask.of(("Authorization", "Basic x")),
        Ask.key("x"),
        Ask.of(("X-API-Key", ""), ("x-api-key", "y")),
    ):
        assert (await admitted(Identity(FakeClock(), [], is_private=True), ask)).caller is LOCAL
    with pytest.raises(Ambiguous):
        await admitted(Identity(FakeClock(), [], is_private=True), Ask.of(query=b"api_key=x"))
    with pytest.raises(Unauthorized):
        await admitted(Identity(FakeClock(), [], is_private=False), Ask.of())


# -- failures ---------------------------------------------------------------------------------------------------------


async def test_F80_the_bound_is_per_address_and_in_all() -> None:
    clock = FakeClock()
    made = identity(lambda _: None, clock=clock)
    with pytest.raises(Unauthorized):
        for number in range(PER_ADDRESS):
            with pytest.raises(Unauthorized):
                await admitted(made, Ask.bearer(f"t{number}"))
        await admitted(made, Ask.bearer("t", peer="192.0.2.8"))
    with pytest.raises(TooManyFailures) as refused:
        await admitted(made, Ask.bearer("t"))
    assert refused.value.retry_after == WINDOW
    clock.advance(WINDOW)
    with pytest.raises(Unauthorized):
        await admitted(made, Ask.bearer("t"))


def test_F80_many_addresses_are_no_way_around_it_and_fill_no_memory() -> None:
    clock = FakeClock()
    failures = Failures(clock)
    for number in range(IN_ALL):
        failures.note(f"10.{number >> 8}.0.{number & 255}")
    assert failures.wait("192.0.2.1") == WINDOW
    for number in range(MAX_ADDRESSES + 100):
        failures.note(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(failures) == MAX_ADDRESSES


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "nonsense", True),
    ],
)
def test_whom_a_failure_counts_against(one: str, other: str, are_one: bool) -> None:
    failures = Failures(FakeClock())
    for _ in range(PER_ADDRESS):
        failures.note(one)
    assert (failures.wait(other) > 0) is are_one


async def test_what_an_operator_should_know_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(Unverifiable):
        await admitted(identity(fails(ValueError("planted-secret"))), Ask.bearer("token"))
    assert "a credential could not be verified: ValueError" in caplog.text
    assert "(identity/identity.py:" in caplog.text and "test_identity.py:" in caplog.text
