"""What must not be read in a text: known secrets, whatever they look like, and what looks like a secret, whoever's.

Known secrets are found as they are and in the spellings that URLs, JSON, logs and Basic credentials give them; shapes
are those of tokens whose form their issuers publish, and values that stand behind a telling word. Shapes are matched
by RE2, in time that grows with the text alone: what is scrubbed was written by whoever attacks.

A text is scrubbed before it is cut: half a secret has no shape.
"""

import base64
import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, cast
from urllib.parse import quote, urlsplit

from broker.core.shape import is_array, is_object

MASK: Final = "********"
"""Of fixed length, so that it does not tell the length of what it hides."""
MIN_KNOWN: Final = 8
"""Characters. A shorter value (`true`, `8080`) would be found in half of all lines, and guards nothing."""
MAX_KNOWN: Final = 4096
"""Texts that are looked for, spellings included: each costs every scrubbed text a search. The oldest are forgotten."""
MAX_DEPTH: Final = 64
"""Nested values that are walked, as deep as the wire lets messages be; what is deeper is masked."""

_OPAQUE: Final = frozenset({"blob"})
"""Members that hold bytes in base64: a mask in them would break what it does not understand."""
_OPAQUE_TYPES: Final = frozenset({"image", "audio"})

_TOKENS: Final = (
    # PEM: to its end, or, where somebody has cut it off, to the end of the text
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?s:.*?)(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)",
    r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",  # AWS
    r"\bgh[pousr]_[A-Za-z0-9]{20,}",  # GitHub
    r"\bgithub_pat_[A-Za-z0-9_]{20,}",
    r"\bgl(?:pat|ptt|rt|dt|cbt)-[A-Za-z0-9_\-]{20,}",  # GitLab
    r"\bxox[abeoprs]-[A-Za-z0-9\-]{10,}",  # Slack
    r"\bxapp-[A-Za-z0-9\-]{10,}",
    r"\bhooks\.slack\.com/services/[A-Za-z0-9/_\-]{10,}",
    r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]*)?",  # JWT
    r"\b(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    r"\bsk-[A-Za-z0-9_\-]{20,}",  # OpenAI, Anthropic
    r"\bAIza[A-Za-z0-9_\-]{35}",  # Google
    r"\bya29\.[A-Za-z0-9_\-]{20,}",
    r"\bGOCSPX-[A-Za-z0-9_\-]{20,}",
    r"\bnpm_[A-Za-z0-9]{36}",
    r"\bpypi-[A-Za-z0-9_\-]{16,}",
    r"\bhf_[A-Za-z0-9]{30,}",
    r"\bSG\.[A-Za-z0-9_\-]{16,64}\.[A-Za-z0-9_\-]{16,64}",  # SendGrid
    r"\bdo[opr]_v1_[a-f0-9]{64}",
    r"\bhv[sb]\.[A-Za-z0-9_\-]{24,}",  # Vault
)
_WORDS = r"(?:pass(?:word|wd|phrase)|pwd|secret|(?:api|access|private|signing)[_\-]?key)"
_LABELLED: Final = (
    r"\bmcpb_[a-z2-7]{12}_",  # our own: the id is no secret, and tells whose it is
    r"(?i:authorization\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?(?:(?:bearer|basic|token|digest|negotiate|apikey)\s{1,4})?)",
    r"(?i:\b(?:bearer|basic)\s{1,4})",
    r"(?i:" + _WORDS + r"[\w\-]{0,32}\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?)",
    r"(?i:(?:token|credentials?)[\w\-]{0,32}(?:=|\\?[\"']\s{0,4}:\s{0,4}\\?[\"']))",
    r"(?i:\bx-api-key\s{0,4}:\s{0,4})",
)
_VALUES: Final = (
    r"[A-Za-z0-9_\-]{43}",
    r"[^\s\"',;&<>\\]+",
    r"[A-Za-z0-9._~+/=\-]{16,}",
    r"[^\s\"',;&<>\\)\]}]{4,}",
    r"[^\s\"',;&<>\\)\]}]{4,}",
    r"[^\s\"',;&<>\\]{4,}",
)
"""Of each label, its value; the label is kept."""
_USERINFO: Final = r"(://)[^\s/@\"'<>]+:[^\s/@\"'<>]+@"

_re2: Any = importlib.import_module("re2")


def _options() -> Any:
    options = _re2.Options()
    options.encoding = _re2.Options.Encoding.LATIN1  # bytes as they are: texts may hold what is no UTF-8
    options.log_errors = False
    return options


_OPTIONS: Final = _options()
_TOKEN: Final = _re2.compile("|".join(_TOKENS).encode(), _OPTIONS)
_PAIR: Final = _re2.compile(
    "|".join(f"({label}){value}" for label, value in zip(_LABELLED, _VALUES, strict=True)).encode(), _OPTIONS
)
_LOGIN: Final = _re2.compile(_USERINFO.encode(), _OPTIONS)
_MASK: Final = MASK.encode()


def without_shapes(text: str) -> str:
    """`text` without what looks like a secret."""
    raw = text.encode("utf-8", "surrogatepass")
    found = _LOGIN.sub(_without_login, raw)
    found = _TOKEN.sub(_MASK, found)
    found = _PAIR.sub(_kept, found)
    return text if found == raw else found.decode("utf-8", "surrogatepass")


def _without_login(match: Any) -> bytes:
    return match.group(1) + _MASK + b"@"


def _kept(match: Any) -> bytes:
    """The label of a pair, and the mask."""
    return cast(bytes, next(label for label in match.groups() if label is not None)) + _MASK


def spellings(secret: str) -> Iterator[str]:
    """The texts in which a secret may be met; none for one that is too short to be told from other words.

    A secret of several lines is met line by line in logs; the password of a URL, and the credential behind its scheme,
    alone.
    """
    parts = [secret, *secret.splitlines(), *_inner(secret)]
    for part in dict.fromkeys(one.strip() for one in parts):
        if len(part) < MIN_KNOWN:
            continue
        yield part
        yield quote(part, safe="", errors="surrogatepass")
        yield json.dumps(part, ensure_ascii=False)[1:-1]
        yield json.dumps(part)[1:-1]
        yield base64.b64encode(part.encode("utf-8", "surrogatepass")).decode()


def _inner(secret: str) -> Iterator[str]:
    scheme, _, rest = secret.strip().partition(" ")
    if scheme.lower() in ("bearer", "basic", "token", "apikey", "digest", "bot") and " " not in rest:
        yield rest
    if "://" in secret and "@" in secret:
        try:
            yield urlsplit(secret).password or ""
        except ValueError:
            return


class KnownSecrets:
    """Secrets that are looked for; more can be learned at any time, and none is taken back: one that was rotated may
    still be good somewhere.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known: dict[str, None] = {}
        self._searched: tuple[str, ...] = ()
        for secret in secrets:
            self.learn(secret)

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, secret: str) -> None:
        """Look for this one too; not for one that its shape gives away."""
        if without_shapes(secret) == MASK:
            return
        for spelling in spellings(secret):
            self._known.pop(spelling, None)
            self._known[spelling] = None
        while len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        # The longest first: a secret may be part of another. A whole new tuple: other threads read the old one.
        self._searched = tuple(sorted(self._known, key=len, reverse=True))

    def without(self, text: str) -> str:
        """`text` without known secrets."""
        for secret in self._searched:
            if secret in text:
                text = text.replace(secret, MASK)
        return text

    def scrubbed(self, text: str) -> str:
        """`text` without known secrets, and without what looks like one."""
        return without_shapes(self.without(text))


def in_json(value: Any, scrub: Callable[[str], str], depth: int = 0) -> Any:
    """A JSON value with every text in it scrubbed, names of members included; what changes nothing is the same object.

    Bytes in base64 (`blob`, and `data` of pictures and sounds) are left as they are.
    """
    if isinstance(value, str):
        return scrub(value)
    if depth >= MAX_DEPTH:
        return value if value is None or isinstance(value, int | float) else MASK
    if is_array(value):
        items = [in_json(one, scrub, depth + 1) for one in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    if is_object(value):
        return _object(value, scrub, depth)
    return value


def _object(value: Mapping[str, Any], scrub: Callable[[str], str], depth: int) -> Mapping[str, Any]:
    opaque = _OPAQUE | {"data"} if value.get("type") in _OPAQUE_TYPES else _OPAQUE
    members = {
        scrub(name): one if name in opaque and isinstance(one, str) else in_json(one, scrub, depth + 1)
        for name, one in value.items()
    }
    is_same = all(name in members and members[name] is one for name, one in value.items())
    return value if is_same else members
