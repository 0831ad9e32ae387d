"""`redact: results`, on results of any size."""

import threading

import pytest

from broker.config import Secret
from broker.core.redaction import MASK
from broker.relay import hiding
from broker.relay.hiding import AT_ONCE, scrubbed_result

CANARY = "canary-7f3a9c"


@pytest.mark.parametrize("size", [10, AT_ONCE + 1])
async def test_a_result_is_hidden_in_its_order_and_a_large_one_in_a_thread(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Secret(CANARY).reveal()
    threads: list[int] = []
    inner = hiding._scrubbed
    monkeypatch.setattr(hiding, "_scrubbed", lambda one: (threads.append(threading.get_ident()), inner(one))[1])
    result = {"content": [{"type": "text", "text": CANARY + "x" * size}], "taskId": CANARY, "isError": False, "more": 1}
    found = await scrubbed_result(result)
    assert found["content"] == [{"type": "text", "text": MASK + "x" * size}]
    assert (list(found), found["taskId"], found["more"]) == (list(result), CANARY, 1)
    assert (threads == [threading.get_ident()]) is (size < AT_ONCE)
