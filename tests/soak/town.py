"""Where the storm blows: a broker with tenants, keys, limits, budgets, guardrails and every kind of server."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.config import Secret
from broker.identity.keys import ENTROPY, hash_of, mint
from tests.e2e.brokers import children, environment
from tests.peers import ROOT, free_port, kill_group
from tests.soak.serving import Serving, wait_until

Json = dict[str, Any]
SECRET = "a secret of keys for the storm, long enough"
STEP_TIMEOUT: float = 60
PIPES: dict[str, Json] = {
    "old-pipe": {"era": "legacy", "limits": {"concurrency": 4, "queue": 20, "wait": 5}},
    "new-pipe": {"era": "modern", "cost": 1},
    "by-session": {"era": "legacy", "isolation": "session"},
    "by-caller": {"era": "modern", "isolation": "caller"},
    "turned": {"era": "legacy", "when_down": "hide"},
    "sleepy": {"era": "modern", "start": "lazy", "idle_stop": 1},
}
WEBS: dict[str, Json] = {
    "old-web": {"era": "legacy"},
    "new-web": {"era": "modern", "limits": {"per_caller": {"rate": "30/second"}}},
    "old-sse": {"era": "legacy", "transport": "sse"},
}
SERVERS = (*PIPES, *WEBS)
ISOLATED = ("by-session", "by-caller")
GUARDED = ("old-web", "new-pipe")
HIDDEN_FROM = {"initech": ("new-web", "by-caller")}
"""What an organization is not granted."""
LIMITS: dict[str, Json] = {
    "acme": {"concurrency": 6, "queue": 4, "wait": 2},
    "globex": {"rate": "60/second", "budget": {"day": 1_000_000}},
    "initech": {"budget": {"hour": 30}},
}
GUARD = """
def check(ctx):
    if ctx["phase"] == "request":
        if ctx["args"].get("is_bad"):
            return {"action": "block", "reason": "it says so itself"}
        return {"action": "modify", "args": {**ctx["args"], "judged": True}}
    return {"action": "allow"}
"""
ALARMS = (
    *("Traceback", "internal error", "a fault of the broker", "nobody caught", "never retrieved", "was destroyed"),
    *("is no SQLite database", "is damaged"),
)
"""What a healthy broker never says, whatever happens around it."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A caller with a key. `key` is "" on a pipe, where it is the local user of a broker of its own."""

    number: int
    front: str
    era: str
    organization: str = ""
    key: str = ""

    @property
    def canary(self) -> str:
        return f"canary-{self.number:05d}"

    def sees(self, server: str) -> bool:
        return server not in HIDDEN_FROM.get(self.organization, ())


def residents(count: int) -> list[Resident]:
    """Of every organization, front and era; the first two each have a pipe."""
    found = [Resident(0, "stdio", "modern"), Resident(1, "stdio", "legacy")]
    ways = (("http", "modern"), ("http", "legacy"), ("sse", "legacy"), ("http", "modern"), ("http", "legacy"))
    for number in range(2, count):
        key = mint(os.urandom(ENTROPY)).text.reveal()
        found.append(Resident(number, *ways[number % len(ways)], tuple(LIMITS)[number % len(LIMITS)], key))
    return found


@dataclass
class Town:
    directory: Path
    people: list[Resident]
    broker: Serving = field(init=False)
    pipes: set[int] = field(default_factory=set[int])
    """Process ids of the brokers that stdio callers have started."""
    webs: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict[str, Any])
    ports: dict[str, int] = field(default_factory=dict[str, int])
    document: Json = field(default_factory=dict[str, Any])
    """The configuration that has no mistake."""

    @property
    def config(self) -> Path:
        return self.directory / "servers.yaml"

    @property
    def log(self) -> Path:
        return self.directory / "broker.stderr"

    # --- at the beginning ---

    def start(self) -> None:
        self.guard(GUARD)
        for key in WEBS:
            self.ports[key] = free_port()
            self.start_web(key)
        self.document = self._document()
        self.write(self.document)
        self.broker = Serving.start(self.config, self.log)

    def start_web(self, key: str) -> None:
        """A server behind HTTP, at the place where it was before."""
        era, transport = WEBS[key]["era"], WEBS[key].get("transport", "http")
        file = self.directory / f"{key}.url"
        file.unlink(missing_ok=True)
        argv = ["-m", "tests.soak.upstream", "--era", era, "--transport", transport]
        self.webs[key] = subprocess.Popen(
            [sys.executable, *argv, "--port", str(self.ports[key]), "--port-file", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
            cwd=ROOT,
            start_new_session=True,
        )
        wait_until(file.exists)

    def _document(self) -> Json:
        servers: dict[str, Json] = {}
        for key, given in PIPES.items():
            more = {name: value for name, value in given.items() if name != "era"}
            servers[key] = {**self.command(key, 0), "timeout": 3, "isolation_max": 8, "isolation_idle": 1, **more}
        for key, given in WEBS.items():
            path = "sse" if given.get("transport") == "sse" else "mcp"
            more = {name: value for name, value in given.items() if name != "era"}
            servers[key] = {"url": f"http://127.0.0.1:{self.ports[key]}/{path}", "timeout": 3, **more}
        organizations: dict[str, Json] = {}
        for name, limits in LIMITS.items():
            keys = {
                f"k{one.number}": {"hash": hash_of(one.key, Secret(SECRET))}
                for one in self.people
                if one.organization == name
            }
            hidden = [{"servers": list(HIDDEN_FROM[name])}] if name in HIDDEN_FROM else []
            granted = {"allow": [{"servers": ["*"]}], "deny": hidden}
            organizations[name] = {**granted, "limits": limits, "teams": {"all": {"keys": keys}}}
        guarded = {"file": "guard.py", "phases": ["request", "result"], "servers": list(GUARDED), "timeout": 5}
        return {
            "broker": {"state_dir": str(self.directory / "state"), "first_wait": 30, "drain": 3},
            "identity": {"key_secret": SECRET},
            "metrics": {"access": "public"},
            "servers": servers,
            "guardrails": {"no-bad": guarded},
            "organizations": organizations,
        }

    def command(self, key: str, number: int) -> Json:
        """Of a server behind a pipe; another number makes it another one."""
        argv = ["-m", "tests.soak.upstream", "--era", PIPES[key]["era"], "--number", str(number)]
        keeps = ["--keeps"] if key in ISOLATED else []
        return {"command": sys.executable, "args": [*argv, *keeps], "cwd": str(ROOT)}

    # --- in the course of it ---

    def write(self, document: Json | str) -> None:
        """Another configuration, whole at any moment. JSON is YAML."""
        partial = self.config.with_suffix(".partial")
        partial.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
        partial.replace(self.config)

    def guard(self, text: str) -> None:
        """Another text for the guardrail."""
        (self.directory / "guard.partial").write_text(text, encoding="utf-8")
        (self.directory / "guard.partial").replace(self.directory / "guard.py")

    def hang_up(self) -> None:
        """Ask the broker to read its file again."""
        self.broker.process.send_signal(signal.SIGHUP)

    def log_of(self, number: int) -> Path:
        """Where the broker of a stdio caller logs."""
        return self.directory / f"pipe-{number}.stderr"

    def last_words(self, number: int) -> list[str]:
        """What the broker of a stdio caller has said last."""
        file = self.log_of(number)
        return file.read_text(encoding="utf-8", errors="replace").splitlines()[-2:] if file.exists() else []

    def alarms(self) -> list[str]:
        """What brokers have said that they must not."""
        texts = [file.read_text(encoding="utf-8", errors="replace") for file in self.directory.glob("*.stderr")]
        return [line for text in texts for line in text.splitlines() if any(word in line for word in ALARMS)]

    def offspring(self, word: str) -> list[int]:
        """Processes below any of the brokers whose command has this word."""
        found = set().union(*(children(pid) for pid in (self.broker.process.pid, *self.pipes)))
        return sorted(pid for pid in found if word in command_of(pid))

    # --- at the end ---

    def end(self) -> list[str]:
        """Ask the broker to end: what of it was not as it must be."""
        found, below = list[str](), children(self.broker.process.pid)
        self.broker.process.terminate()
        try:
            status = self.broker.process.wait(30)
            if status:
                found.append(f"the broker ended with status {status}")
        except subprocess.TimeoutExpired:
            found.append("the broker did not end")
        return found + [f"process {pid} outlived the broker" for pid in below if is_running(pid)]

    def close(self) -> None:
        """Kill what is left."""
        if hasattr(self, "broker"):
            below = children(self.broker.process.pid)
            kill_group(self.broker.process)
            for pid in below:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.broker.process.stdin is not None:
                with suppress(BrokenPipeError):
                    self.broker.process.stdin.close()
        for process in self.webs.values():
            kill_group(process)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
