"""What is allowed, but should be said at start: warnings about a configuration that is otherwise fine."""

import re

from broker.config.document import Data, Finding
from broker.config.model import Config, HttpServer, StdioServer
from broker.config.rules import is_loopback, split_url
from broker.config.secret import has_reference, reveal

_RUNNERS: dict[str, frozenset[str]] = {
    "npx": frozenset({"-p", "--package"}),
    "bunx": frozenset({"-p", "--package"}),
    "uvx": frozenset({"--from"}),
}
"""Programs that fetch a package and run it, with the options that name the package."""

_WITH_VALUE = frozenset({"--python", "-p", "--with", "--index", "--index-url", "--registry", "--cache", "-c", "--call"})
_COMMIT = r"|.+@[0-9a-f]{40}"
_EXACT_NPM = re.compile(r".+?@v?[0-9]+\.[0-9]+\.[0-9]+(?:[-+][0-9A-Za-z.+-]+)?" + _COMMIT)  # there, 1.2 is a range
_EXACT_PYPI = re.compile(r".+?(?:@|==)v?[0-9]+(?:\.[0-9A-Za-z]+)+(?:[-+][0-9A-Za-z.+-]+)?" + _COMMIT)
_LOCAL = (".", "/", "~", "file:")


def advise(config: Config, unresolved: dict[str, Data]) -> list[Finding]:
    """unresolved: the file's data before references were expanded, to see what came from one."""
    if not config.servers:
        return [Finding(("servers",), "no servers: the broker will serve nothing", "Add one below servers:.")]
    found: list[Finding] = []
    for key, server in config.servers.items():
        if isinstance(server, HttpServer):
            found += _plain_http(key, server)
        else:
            found += _unpinned(key, server)
    return found + _visible_secrets(unresolved) + _own_key_secret(config)


def _own_key_secret(config: Config) -> list[Finding]:
    if config.store.url is None or config.identity.key_secret is not None:
        return []
    message = "a store that several machines share, and a key secret that only this one has"
    return [Finding(("store", "url"), message, "Set identity.key_secret, the same on every machine.")]


def _plain_http(key: str, server: HttpServer) -> list[Finding]:
    parts = split_url(reveal(server.url))
    if not server.headers or parts is None or parts.scheme != "http" or is_loopback(parts.hostname or ""):
        return []
    return [Finding(("servers", key, "url"), "headers are sent over plain http, readable on the way", "Use https.")]


def _unpinned(key: str, server: StdioServer) -> list[Finding]:
    runner, args = _program(reveal(server.command)), [reveal(arg) for arg in server.args]
    if runner == "cmd" and [arg.lower() for arg in args[:1]] == ["/c"] and len(args) > 1:
        runner, args = _program(args[1]), args[2:]
    if runner not in _RUNNERS:
        return []
    package = _package(args, _RUNNERS[runner])
    exact = _EXACT_PYPI if runner == "uvx" else _EXACT_NPM
    if package is None or package.startswith(_LOCAL) or exact.fullmatch(package):
        return []
    example = "package==1.2.3" if runner == "uvx" else "package@1.2.3"
    message = f"{runner} runs whatever version of the package is newest, also one that was tampered with"
    return [Finding(("servers", key, "args"), message, f"Pin it, as in {example}.")]


def _program(command: str) -> str:
    name = re.split(r"[/\\]", command)[-1].lower()
    return re.sub(r"\.(?:exe|cmd|ps1)$", "", name)


def _package(args: list[str], naming_options: frozenset[str]) -> str | None:
    """What is fetched: the value of a naming option, else the first argument that is no option."""
    first: str | None = None
    rest = iter(args)
    for arg in rest:
        option, equals, value = arg.partition("=")
        if option in naming_options:
            return value if equals else next(rest, None)
        if arg in _WITH_VALUE:
            next(rest, None)
        elif not arg.startswith("-"):
            first = arg
            break  # what follows belongs to the package's own program
    return first


def _visible_secrets(unresolved: dict[str, Data]) -> list[Finding]:
    servers = unresolved.get("servers")
    found: list[Finding] = []
    for key, entry in servers.items() if isinstance(servers, dict) else ():
        args = entry.get("args") if isinstance(entry, dict) else None
        for index, arg in enumerate(args if isinstance(args, list) else ()):
            if isinstance(arg, str) and has_reference(arg):
                message = "every user of this machine can read arguments in the list of processes"
                found.append(Finding(("servers", key, "args", index), message, "Pass a secret in env."))
    return found
