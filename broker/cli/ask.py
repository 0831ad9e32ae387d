"""`call`, `read` and `prompt`: start what is needed, ask one thing, show the answer, stop."""

import difflib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import anyio
from rich.progress import Progress, TaskID

from broker.cli.begin import begin, read_config, run_to_end
from broker.cli.exits import FAILED, OK, Stop
from broker.cli.local import Local, Refused, settled
from broker.cli.screen import Screen
from broker.cli.words import line
from broker.compiled import naming_of
from broker.config import Loaded
from broker.core.request import LISTS, NAMED, Kind

Show = Callable[[dict[str, Any]], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how its answer is shown. `arguments`: None if the method takes none."""

    method: str
    name: str
    arguments: dict[str, Any] | None
    show: Show

    @property
    def kind(self) -> Kind:
        """Of the entry that is asked."""
        return NAMED[self.method][0]

    @property
    def params(self) -> dict[str, Any]:
        """Of the request, less `_meta`."""
        named = {NAMED[self.method][1]: self.name}
        return named if self.arguments is None else {**named, "arguments": self.arguments}


def ask(config: Path | None, question: Question, *, as_json: bool, level: str) -> int:
    """The exit code. Raises: Stop."""
    screen = begin(level)
    loaded = read_config(config)
    owner = _owner(loaded, question)
    return run_to_end(lambda: _ask(Local(loaded, owner), owner, question, screen, as_json=as_json))


def _owner(loaded: Loaded, question: Question) -> frozenset[str] | None:
    """The server that the form of the name belongs to; None if it is nobody's, and all must be asked."""
    naming, is_uri = naming_of(loaded.config), question.kind is Kind.RESOURCE
    owner = naming.resolve_uri(question.name) if is_uri else naming.owner_of_name(question.name)
    if owner is None:
        return None
    key = owner[0].key
    if not loaded.config.servers[key].enabled:
        raise Stop(f"server {key} is disabled in {line(loaded.path)}", FAILED)
    return frozenset({key})


async def _ask(local: Local, owner: frozenset[str] | None, question: Question, screen: Screen, *, as_json: bool) -> int:
    async with local.running():
        try:
            with screen.progress() as progress:
                await _connect(local, owner, progress)
                result = await _answer(local, question, progress)
        except Refused as refused:
            if as_json:
                screen.json({"error": refused.error})
            raise Stop(await _complaint(local, question, refused), FAILED) from None
        if as_json:
            screen.json(result)
        else:
            for text in question.show(result):
                screen.say(text)
    return FAILED if result.get("isError") is True else OK


async def _connect(local: Local, owner: frozenset[str] | None, progress: Progress) -> None:
    """Wait for the servers that are started. Raises: Stop, if the one that owns the name does not come."""
    names = ", ".join(local.upstreams)
    task = progress.add_task(line(f"connecting to {names}", 60), total=None)

    async def wait(key: str) -> None:
        upstream = local.upstreams[key]
        # The first attempt ends within this: the handshake, and then the lists.
        state = await settled(upstream, upstream.server.connect_timeout + upstream.server.timeout)
        if state != "ready" and owner is not None:
            raise Stop(f"server {key} is not available: {line(upstream.trouble or state, 1000)}", FAILED)

    async with anyio.create_task_group() as tasks:
        for key in local.upstreams:
            tasks.start_soon(wait, key)
    progress.remove_task(task)


async def _answer(local: Local, question: Question, progress: Progress) -> dict[str, Any]:
    """Raises: Refused."""
    task = progress.add_task(line(f"waiting for {question.name}", 60), total=None)

    def emit(method: str, params: dict[str, Any]) -> None:
        if method == "notifications/progress":
            _advance(progress, task, params)

    return await local.ask(question.method, question.params, emit)


def _advance(progress: Progress, task: TaskID, params: dict[str, Any]) -> None:
    done, total, message = params.get("progress"), params.get("total"), params.get("message")
    if isinstance(message, str) and message:
        progress.update(task, description=line(message, 60))
    if _is_amount(total) and _is_amount(done):
        progress.update(task, total=total, completed=done)


def _is_amount(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


async def _complaint(local: Local, question: Question, refused: Refused) -> str:
    """What went wrong, with the names that may have been meant, and with who is not there."""
    message = line(refused.error.get("message", ""), 2000)
    names = await _names(local, question.kind)
    if question.name in names:
        return f"{message} (code {refused.error.get('code')})"
    absent = "".join(
        f"\n{key} is not available: {line(why, 1000)}" for key, why in local.broker.engine.router.troubles()
    )
    near = difflib.get_close_matches(question.name[:200], names, n=3)
    if near:
        return f"{message}. Did you mean {', '.join(line(name) for name in near)}?{absent}"
    return f"{message}. `mcp-broker catalog` shows what there is.{absent}"


async def _names(local: Local, kind: Kind) -> list[str]:
    try:
        return [item[LISTS[kind].name_key] for item in await local.items(kind)]
    except Refused:  # nothing is known of any server
        return []
