"""How long streams are kept for callers that come back."""

from typing import Any

from broker.core.caller import LOCAL
from broker.core.era import LATEST_LEGACY
from broker.downstream.replay import KEPT, Replay
from broker.downstream.session import LegacySession, Sessions


def test_a_stream_is_kept_for_a_while_after_its_end_and_for_ever_before() -> None:
    replay = Replay()
    over, open_still = replay.open(), replay.open()
    for log in (over, open_still):
        log.add(b"{}")
    over.end()
    replay.forget(100.0)
    replay.forget(100.0 + KEPT - 1)
    assert replay.find("s1-0") == (over, 0)
    replay.forget(100.0 + KEPT)
    assert replay.find("s1-0") is None
    assert replay.find("s2-0") == (open_still, 0)


def test_the_sessions_of_a_front_let_streams_go() -> None:
    ended: list[str] = []
    sessions = Sessions(ended.append)
    session = LegacySession("id", LOCAL, "", LATEST_LEGACY)
    assert sessions.open(session)
    session.replay.open().end()
    for now in (0.0, KEPT):
        sessions.expire(now)
    assert session.replay.find("s1-0") is None
    assert ended == [] and len(sessions) == 1


def test_the_next_stream_has_another_id() -> None:
    replay = Replay()
    replay.open().end()
    for now in (0.0, KEPT):
        replay.forget(now)
    log: Any = replay.open()
    assert replay.find("s1-0") is None and replay.find("s2-0") == (log, 0)
