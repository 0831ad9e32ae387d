"""What a value must look like, as plain functions: value in, the same value out.

Raises: Fault, all of them. A message never quotes a value in which a secret may live (headers, URLs, arguments).
"""

import ipaddress
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from broker.config.problem import Fault
from broker.config.secret import Secret, reveal
from broker.core.domain import GREATEST, is_number

MAX_PATTERN: int = 256
"""Characters. Names are at most 128 and URIs rarely longer; patterns are matched against every entry of a catalog."""

RESERVED_HEADERS: frozenset[str] = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "transfer-encoding",
    }
)
"""The broker sets these for each request; a configured value would contradict the body or the session."""

RESERVED_HEADER_PREFIX: str = "mcp-param-"

MIN_KEY_SECRET: int = 32
"""Characters. A shorter one could be guessed by whoever has the hashes."""

MAX_VALUES: int = 256
"""Values in one condition. Whoever needs more wants a pattern, or a guardrail."""

MAX_PATH: int = 256
"""Characters of the path of an argument."""

_HASH = re.compile(r"[0-9a-f]{64}")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9:.]+(?:[Zz]|[+-][0-9]{2}:[0-9]{2}))?")
_ARGUMENT_PATH = re.compile(r"args(?:\.[^.]+){1,8}")
_Any = TypeVar("_Any")
_Text = TypeVar("_Text", bound=str | Secret)
_WORD = re.compile(r"[a-z][a-z0-9-]{0,31}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
_ENV_KEY = re.compile(r"[^=\x00]+")
_SCOPE = re.compile(r"[!#-\[\]-~]{1,256}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOST = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://" + _HOST.pattern)


def word(text: str) -> str:
    """A server key, prefix or group name."""
    if not _WORD.fullmatch(text):
        raise Fault(
            "a name must be 1 to 32 of a-z, 0-9 and -, and begin with a letter", "Rename it, for example to my-server."
        )
    return text


def prefix(text: str) -> str:
    return word(text) if text else text


def single_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise Fault("must be a line of printable text")
    return text


def not_empty(values: tuple[_Any, ...]) -> tuple[_Any, ...]:
    """A list without which the rest means nothing."""
    if not values:
        raise Fault("must not be empty")
    return values


def file_path(text: str) -> str:
    """A path that is read as written: references are not expanded in it."""
    if not text or "\0" in text:
        raise Fault("must be a path")
    if "${" in text:
        raise Fault("references are not expanded here", "Write the path itself.")
    return text


def pattern(text: str) -> str:
    """For resources: a URI in which `*` stands for any characters; `.*` may be meant literally, as in `/a/*.*`."""
    if not 1 <= len(text) <= MAX_PATTERN:
        raise Fault(f"a pattern must have 1 to {MAX_PATTERN} characters")
    if any(char.isspace() or unicodedata.category(char) in {"Cc", "Cf"} for char in text):
        raise Fault("a pattern must not contain spaces or control characters")
    if "**" in text:
        raise Fault("** is not a pattern", f"One * already stands for any characters: write {_collapsed(text)}.")
    return text


def name_pattern(text: str) -> str:
    """For tools and prompts: also refuses what looks like a regular expression, which would match nothing."""
    pattern(text)
    if text.startswith("^") or text.endswith("$") or ".*" in text:
        meant = _collapsed(text.removeprefix("^").removesuffix("$").replace(".*", "*")) or "*"
        raise Fault("this looks like a regular expression", f"Only * is special: write {meant}.")
    return text


def _collapsed(text: str) -> str:
    return re.sub(r"\*+", "*", text)


def command(value: str | Secret) -> str | Secret:
    text = reveal(value)
    if not text.strip() or _CONTROL.search(text):
        raise Fault("must name a program, without control characters")
    return value


def argument(value: _Text) -> _Text:
    """An argument, or the value of an environment variable: the operating system ends both at a NUL."""
    if "\0" in reveal(value):
        raise Fault("must not contain a NUL character")
    return value


def directory(value: str | Secret) -> str | Secret:
    if not reveal(value):
        raise Fault("must name a directory", "Leave it out to use the broker's own.")
    return argument(value)


def env_key(text: str) -> str:
    if not _ENV_KEY.fullmatch(text):
        raise Fault("the name of an environment variable must not be empty, nor contain = or NUL")
    return text


def header_name(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise Fault(
            "the name of a header may contain only letters, digits and !#$%&'*+-.^_`|~",
            "Write the name, a colon, and the value in quotes.",
        )
    lowered = text.lower()
    if lowered in RESERVED_HEADERS or lowered.startswith(RESERVED_HEADER_PREFIX):
        raise Fault("the broker sets this header itself", "Remove it.")
    return text


def header_value(value: _Text) -> _Text:
    text = reveal(value)
    if _CONTROL.search(text):
        raise Fault("the value contains a line break or another control character", "Look at the end of the secret.")
    if not text.isascii():
        raise Fault("the value contains characters outside ASCII")
    return value


def has_opentelemetry(enabled: bool) -> bool:
    # Where the exporter is, all of it is. The API alone comes with the MCP SDK.
    if enabled and not _is_installed("opentelemetry.exporter.otlp.proto.http"):
        raise Fault("OpenTelemetry is not installed", "Say: pip install 'mcp-broker[otel]'")
    return enabled


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def url(value: str | Secret) -> str | Secret:
    text = reveal(value)
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise Fault("a URL must not contain spaces, backslashes, control characters or characters outside ASCII")
    parts = split_url(text)
    if parts is None:
        raise Fault("this is not a URL")
    if parts.scheme not in {"http", "https"}:
        raise Fault("a URL must begin with http:// or https://")
    if "@" in parts.netloc:
        raise Fault("a URL must not contain a user name or password", "Use headers, such as Authorization.")
    if not parts.hostname:
        raise Fault("the URL has no host")
    if parts.fragment:
        raise Fault("a URL must not have a fragment, since it is never sent", "Remove the part from #.")
    return value


def key_hash(text: str) -> str:
    if not _HASH.fullmatch(text):
        raise Fault("must be 64 of 0-9 and a-f", "Print one with mcp-broker key create --for-file.")
    return text


def moment(text: str) -> str:
    seconds(text)
    return text


def seconds(text: str) -> float:
    """A date or a time as seconds since 1970. A date is its beginning in UTC; a time says its zone."""
    if _MOMENT.fullmatch(text):
        try:
            at = datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
            return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            pass
    raise Fault("must be a date or a time with its zone", "Write it as in 2027-01-01 or 2027-01-01T12:00:00Z.")


def argument_path(text: str) -> str:
    """`args.filter.database`: dots go into objects."""
    if len(text) > MAX_PATH or not text.isprintable() or not _ARGUMENT_PATH.fullmatch(text):
        raise Fault(
            "a condition is on args.<name>, or args.<name>.<name> for what is in an object",
            "Write it as in args.database.",
        )
    return text


def scalar(value: object) -> object:
    if not (value is None or isinstance(value, str | bool)) and not _is_number(value):
        raise Fault("must be a text, a number, true, false or null")
    return value


def number(value: object) -> object:
    if not _is_number(value):
        raise Fault("must be a number")
    return value


def _is_number(value: object) -> bool:
    return is_number(value) and abs(value) <= GREATEST


def store_url(value: str | Secret) -> str | Secret:
    parts = split_url(reveal(value))
    if parts is None or parts.scheme not in {"postgresql", "postgres"} or not parts.hostname:
        raise Fault(
            "must be the URL of a PostgreSQL database",
            "Write postgresql://user:password@host/name, or leave it out for a SQLite file in broker.state_dir.",
        )
    if not parts.path.strip("/"):
        raise Fault("the URL names no database", "Add its name: postgresql://user:password@host/name.")
    return value


def split_url(text: str) -> SplitResult | None:
    """None if it has no structure, or a port that is none."""
    try:
        parts = urlsplit(text)
        _ = parts.port, parts.hostname
    except ValueError:
        return None
    return parts


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise Fault("must be a host, or host:port", "Write it as in broker.example.com or 10.0.0.5:8080.")
    return text


def allowed_origin(text: str) -> str:
    if not _ORIGIN.fullmatch(text):
        raise Fault("must be an origin: a scheme, a host, perhaps a port", "Write it as in https://app.example.com.")
    return text


def issuer(text: str) -> str:
    """The `iss` of tokens. Spec: RFC 8414 2, "a URL that uses the https scheme and has no query or fragment"."""
    fetched_url(text)
    if "?" in text:
        raise Fault("an issuer must not have a query")
    return text


def fetched_url(text: str) -> str:
    """A URL that the broker fetches: https, or http on this machine."""
    url(text)
    parts = split_url(text)
    assert parts is not None
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise Fault("must begin with https://", "http is for this machine only.")
    return text


def public_url(text: str) -> str:
    """Where callers reach the broker; what is told to them is made from it."""
    url(text)
    parts = split_url(text)
    assert parts is not None
    if parts.path not in ("", "/") or parts.query or text.endswith("?"):
        raise Fault("must have no path", "Write it as in https://broker.example.com.")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise Fault("must begin with https://: credentials would be readable on the way")
    default = {"https": ":443", "http": ":80"}[parts.scheme]
    return text.rstrip("/").lower().removesuffix(default)


def key_secret(value: Secret) -> Secret:
    if len(value.reveal()) < MIN_KEY_SECRET:
        raise Fault(f"must have at least {MIN_KEY_SECRET} characters", "Make one: openssl rand -base64 32")
    return value


def claim(text: str) -> str:
    """The name of a claim, or the way to one with dots."""
    if not text or len(text) > MAX_PATTERN or not text.isprintable():
        raise Fault("must be the name of a claim")
    return text


def scope(text: str) -> str:
    """RFC 6749 3.3. `offline_access` is between a host and its issuer, and no resource asks for it (SP-78)."""
    if not _SCOPE.fullmatch(text):
        raise Fault("must be a scope: printable ASCII without spaces, quotes and backslashes")
    if text == "offline_access":
        raise Fault("offline_access is nothing that a resource needs", "Remove it.")
    return text


def public_key(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A JWK, without a look at its numbers. A private or symmetric one does not belong into any file."""
    if value.get("kty") not in ("RSA", "EC", "OKP"):
        raise Fault("kty must be RSA, EC or OKP")
    if "d" in value or "k" in value:
        raise Fault("this is a private key", "Give the public half, and make a new key: this one has been in a file.")
    return value


def tool_name(text: str) -> str:
    """The full name of a tool: the key of its server, and its own name."""
    server, separator, own = text.partition("__")
    if not separator or not own or not _WORD.fullmatch(server):
        raise Fault("must be the full name of a tool", "Write it as SERVER__TOOL, without wildcards.")
    return text


def value_path(text: str) -> str:
    """The path of a member of a JSON object: its dots lead into objects."""
    if not _ARGUMENT_PATH.fullmatch(f"args.{text}") or len(text) > MAX_PATH:
        raise Fault("must be the name of an argument; dots lead into objects", "Such as database, or filter.database.")
    return text
