"""`mcp-broker status`: how the servers of a broker that runs are, as its API says."""

import http.client
import json
import os
from typing import Any, Final
from urllib.parse import urlsplit

from broker.cli.begin import begin
from broker.cli.exits import BAD_INPUT, FAILED, OK, Stop
from broker.cli.screen import Screen
from broker.cli.words import line
from broker.clock import SystemClock

KEY: Final = "MCP_BROKER_KEY"
TIMEOUT: Final = 10.0
"""Seconds for the whole answer: a broker that runs answers at once."""
MAX_ANSWER: Final = 16 * 1024 * 1024
"""Bytes of an answer: more than any number of servers has."""
_HEADER: Final = ("server", "state", "for", "opened", "calls", "last error")
_STYLES: Final = {"ready": "", "idle": "dim", "connecting": "yellow", "waiting": "red", "stopped": "red"}


def show(url: str, level: str, *, as_json: bool) -> int:
    """The exit code. Raises: Stop."""
    screen = begin(level)
    health = _get(url, "/readyz")[1].decode("utf-8", "replace").split("\n")
    code, body = _get(url, "/api/v1/upstreams")
    if code != 200:
        remedy = f"Put a key with the role admin into {KEY}." if code in (401, 403) else "Is it a broker?"
        raise Stop(f"{line(url)} answers with status {code}. {remedy}", FAILED)
    try:
        answer = json.loads(body)
        found: list[dict[str, Any]] = answer["items"]
        missing = [int(number) for number in answer.get("missing", ())]
    except (ValueError, KeyError, TypeError):
        raise Stop(f"{line(url)} does not answer like a broker", FAILED) from None
    if as_json:
        screen.json({"ready": [one for one in health if one], "servers": found, "missing": missing})
    else:
        _show(screen, health, found)
        for number in missing:
            screen.say(f"worker {number} does not answer", "red")
    return OK


def _show(screen: Screen, health: list[str], found: list[dict[str, Any]]) -> None:
    for said in health:
        if said:
            screen.say(f"ready: {line(said)}")
    now = SystemClock().wall()
    workers = {one["worker"] for one in found}
    rows = [
        (
            line(one["server"]) + (f" (worker {one['worker']})" if len(workers) > 1 else ""),
            line(one["state"]),
            _age(now - one["since"]),
            str(one["opened"]),
            str(one["calls"]),
            line(one["last_error"]),
        )
        for one in found
    ]
    screen.table(_HEADER, rows, [_STYLES.get(one["state"], "") for one in found], words=len(_HEADER))
    for one in found:
        for said in one["stderr"]:
            screen.say(f"{line(one['server'])}: {line(said)}", "dim")


def _age(seconds: float) -> str:
    """`41s`, `12m`, `3h`, `2d`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def _get(url: str, path: str) -> tuple[int, bytes]:
    """Status and body. Raises: Stop."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme not in ("http", "https") or not host or parts.path not in ("", "/") or parts.query:
        raise Stop(f"{line(url)} is not the URL of a broker. Say --url http://127.0.0.1:8787", BAD_INPUT)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=TIMEOUT)
    key = os.environ.get(KEY)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_ANSWER)
    except (OSError, http.client.HTTPException, ValueError) as error:
        # Not the text of a ValueError: it may quote the key.
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise Stop(f"{line(url)} does not answer: {line(why)}. Is the broker running?", FAILED) from None
    finally:
        connection.close()
