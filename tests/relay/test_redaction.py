"""Secrets in what a server says during a call: in results by setting, in log messages always, in errors always."""

from pathlib import Path
from typing import Any

import pytest

from broker.config import Secret
from broker.core.redaction import MASK
from tests.relay.fake import LEGACY, MODERN, Asked, Fake, Json, house

KNOWN = "canary-7f3a9c"
TOKEN = "ghp_" + "a1B2" * 9
RESULT: Json = {
    "content": [
        {"type": "text", "text": f"log in with {KNOWN} or {TOKEN}"},
        {"type": "image", "data": KNOWN, "mimeType": "image/png"},
        {"type": "resource", "resource": {"uri": f"x:{KNOWN}", "blob": KNOWN}},
    ],
    "structuredContent": {KNOWN: [TOKEN, 1.5, None]},
    "_meta": {"vendor/x": TOKEN},
    "vendor": KNOWN,
}
CALL: Json = {"name": "one__echo", "arguments": {}, "_meta": {"progressToken": 7}}


async def say(asked: Asked) -> Json:
    asked.progress(1, message=f"with {TOKEN}")
    asked.waiting.notice(
        "notifications/message", {"level": "error", "data": {"password": KNOWN, "why": f"Bearer {TOKEN}"}}
    )
    return RESULT


async def called(directory: Path, redact: str, version: Any) -> tuple[Json, dict[str, Json]]:
    Secret(KNOWN).reveal()
    told: dict[str, Json] = {}
    async with house(directory, {"one": Fake(answers={"echo": say})}, servers={"one": {"redact": redact}}) as place:
        result = await place.ask(
            "tools/call", CALL, version=version, emit=told.__setitem__, log_level="debug", session="s"
        )
    return result, told


@pytest.mark.parametrize("version", [LEGACY, MODERN])
async def test_results_pass_as_they_are_unless_told_otherwise(tmp_path: Path, version: Any) -> None:
    result, told = await called(tmp_path, "off", version)
    assert result["content"][:2] == RESULT["content"][:2]
    assert all(result[name] == RESULT[name] for name in ("structuredContent", "vendor"))
    assert told["notifications/progress"]["message"] == f"with {TOKEN}"


@pytest.mark.parametrize("version", [LEGACY, MODERN])
async def test_with_redact_results_no_text_of_a_result_or_report_has_a_secret(tmp_path: Path, version: Any) -> None:
    result, told = await called(tmp_path, "results", version)
    text, image, resource = result["content"]
    assert text["text"] == f"log in with {MASK} or {MASK}"
    assert image["data"] == KNOWN and resource["resource"]["blob"] == KNOWN, "bytes are left as they are"
    assert resource["resource"]["uri"].endswith(MASK)
    assert result["structuredContent"] == {MASK: [MASK, 1.5, None]}
    assert (result["_meta"]["vendor/x"], result["vendor"]) == (MASK, MASK)
    assert told["notifications/progress"]["message"] == f"with {MASK}"
    assert told["notifications/progress"]["progressToken"] == 7


@pytest.mark.parametrize("redact", ["off", "results"])
async def test_SP37_a_log_message_has_no_credentials(tmp_path: Path, redact: str) -> None:
    _, told = await called(tmp_path, redact, LEGACY)
    assert told["notifications/message"]["data"] == {"password": MASK, "why": f"Bearer {MASK}"}
