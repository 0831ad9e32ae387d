"""Log lines as JSON: one object each, whatever is in them, with the request that they are about."""

import json
import logging

import pytest

from broker import logs


def test_I45_a_line_is_one_object_whatever_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", as_json=True)
    log = logging.getLogger("broker.test")
    log.info("a\r\nb \x1b[31m grüße %s", "x")
    logs.begin_request(lambda: "r1")
    log.warning("second")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["level"], first["logger"], first["message"]) == ("info", "broker.test", "a\\r\\nb \\x1b[31m grüße x")
    assert "request" not in first and second["request"] == "r1"


def test_text_lines_know_no_request() -> None:
    logs.configure("info")
    made: list[str] = []
    logs.begin_request(lambda: made.append("") or "r2")
    assert made == []
