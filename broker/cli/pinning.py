"""`mcp-broker pin`: what servers said of themselves, and what an operator accepts of what has changed."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from broker.cli.begin import begin, read_config, run_to_end
from broker.cli.exits import BAD_INPUT, FAILED, OK, Stop
from broker.cli.moments import shown
from broker.cli.words import count, line
from broker.clock import SystemClock
from broker.compiled import pins_directory, state_directory
from broker.config import Config
from broker.core.caller import LOCAL
from broker.core.pins import Pin, Place, Was
from broker.errors import Unrecorded
from broker.upstream.pins import PinFiles, PinsUnreadable
from broker.usage.assembly import audit_of_administration


def show(config: Path | None, server: str | None, *, only_changed: bool, as_json: bool, level: str) -> int:
    """The exit code. Raises: Stop."""
    screen = begin(level)
    loaded = read_config(config)
    files = PinFiles(pins_directory(loaded.config))
    if server is not None:
        _refuse_unknown(loaded.config, server)
    try:
        rows = [
            _row(key, place, pin)
            for key in ([server] if server is not None else files.servers())
            for place, pin in sorted(files.read(key).items())
            if pin.pending is not None or not only_changed
        ]
    except PinsUnreadable as error:
        raise Stop(line(error, 1000), FAILED) from None
    if as_json:
        screen.json({"pins": rows})
        return OK
    for row in rows:
        screen.say(_written(row))
    if not rows:
        screen.say("nothing has changed" if only_changed else "nothing is pinned: set pins: warn or hold for a server")
    return OK


def accept(config: Path | None, server: str, names: Collection[str], *, as_json: bool, level: str) -> int:
    """The exit code. Raises: Stop."""
    screen = begin(level)
    loaded = read_config(config)
    _refuse_unknown(loaded.config, server)
    files, clock = PinFiles(pins_directory(loaded.config)), SystemClock()
    audit = audit_of_administration(loaded.config, state_directory(loaded.config), clock)

    async def main() -> int:
        try:
            missing = sorted(set(names) - {own for _, own in files.read(server)})
            if missing:
                raise Stop(f"{line(server)} has no pin of {line(missing[0], 200)}: see mcp-broker pin list", BAD_INPUT)
            async with audit.running():
                said = ", ".join(names) if names else "all that has changed"
                await audit.did(LOCAL, "pin.accept", server, "done", said)
                places = files.accept(server, names, clock.wall())
        except (PinsUnreadable, Unrecorded) as error:
            raise Stop(line(error, 1000), FAILED) from None
        except OSError as error:
            raise Stop(f"the pins of {line(server)} cannot be written: {error.strerror}", FAILED) from None
        if as_json:
            screen.json({"accepted": [{"kind": kind, "name": own} for kind, own in places]})
        else:
            screen.say(f"{line(server)}: {count(len(places), 'definition')} accepted")
        return OK

    return run_to_end(main)


def _refuse_unknown(config: Config, server: str) -> None:
    if server not in config.servers:
        raise Stop(f"there is no server {line(server)!r} in the file", BAD_INPUT)


def _row(server: str, place: Place, pin: Pin) -> dict[str, Any]:
    pending = pin.pending
    return {
        "server": server,
        "kind": place[0],
        "name": place[1],
        **_was(pin.now),
        "changed": None if pending is None else {"hash": pending.hash, "since": shown(pending.since)},
        "history": [_was(one) for one in pin.history],
    }


def _was(one: Was) -> dict[str, Any]:
    return {"hash": one.hash, "since": shown(one.since), "how": one.how}


def _written(row: dict[str, Any]) -> str:
    """A pin in one line."""
    changed = row["changed"]
    parts = [row["server"], row["kind"], row["name"] or "-", row["hash"][:16], row["how"], row["since"]]
    parts += [f"changed to {changed['hash'][:16]}", changed["since"]] if changed else []
    return "  ".join(line(part, 200) for part in parts)
