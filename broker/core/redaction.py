"""What must not be read in a text: known secrets, whatever they look like, and what looks like a secret, whoever's.

Known secrets are found as they are and in the spellings that common writers of URLs, JSON, logs and Basic credentials
give them; shapes are those of tokens whose form their issuers publish, and values that stand behind a telling word.
Shapes are matched by RE2, in time that grows with the text alone: what is scrubbed was written by whoever attacks.

A text is scrubbed before it is cut: half a secret has no shape.
"""

import base64
import importlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, cast
from urllib.parse import quote, quote_plus, urlsplit

from broker.core.shape import is_array, is_object

MASK: Final = "********"
"""Of fixed length, so that it does not tell the length of what it hides."""
MIN_KNOWN: Final = 8
"""Characters. A shorter value (`true`, `8080`) would be found in half of all lines, and guards nothing."""
LONG: Final = 1024
"""Characters of a secret that is looked for in parts too: of a long text only the beginning is looked at and told, and
there a longer one might not be whole."""
MAX_KNOWN: Final = 8192
"""Texts that are looked for, spellings included (four of most secrets, a dozen of those with signs in them): each takes
memory. The oldest are forgotten."""
FEW: Final = 200
"""Known secrets, spellings included, that are looked for one by one: 50 us each in a text of 256 KiB. Of more, only
those of which a piece is there: else the time that an upstream's words take would grow with their number."""
PIECE: Final = 8
"""Bytes of a secret by which it is met: those of a number, and no secret has fewer (`MIN_KNOWN`)."""
_KEPT_IN_URLS: Final = ("", "/", "!'()*", "!'()*;,/?:@&=+$#")
"""What writers of URLs leave as it is besides letters and digits: two ways in Python, two in JavaScript."""
_KEPT_IN_FORMS: Final = ("", "*", "!*()")
"""Likewise in forms, where a blank is a plus: PHP; Java, and JavaScript's URLSearchParams; .NET. All escape the tilde,
which Python and Go keep."""
_ESCAPE_IN_URL: Final = re.compile("%[0-9A-F]{2}")
_ESCAPED_IN_JSON: Final = ("", "/", "<>&", "<>&='", "<>&'+`\"")
"""What writers of JSON escape without need: nothing, as most do; as in PHP; in Go and Ruby; in Gson; in .NET."""
_ESCAPE_IN_JSON: Final = re.compile(r"\\u[0-9a-f]{4}")
MAX_DEPTH: Final = 64
"""Nested values that are walked, as deep as the wire lets messages be; what is deeper is masked."""

_OPAQUE: Final = frozenset({"blob"})
"""Members that hold bytes in base64: a mask in them would break what it does not understand."""
_OPAQUE_OF_MEDIA: Final = _OPAQUE | {"data"}
_OPAQUE_TYPES: Final = frozenset({"image", "audio"})

_TOKENS: Final = (
    # PEM: to its end, or, where somebody has cut it off, to the end of the text
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^\x00]*?-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|[^\x00]*)",
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
    r"[^\x00\s\"',;&<>\\]+",
    r"[A-Za-z0-9._~+/=\-]{16,}",
    r"[^\x00\s\"',;&<>\\)\]}]{4,}",
    r"[^\x00\s\"',;&<>\\)\]}]{4,}",
    r"[^\x00\s\"',;&<>\\]{4,}",
)
"""Of each label, its value; the label is kept."""
_USERINFO: Final = r"(://)[^\x00\s/@\"'<>]+:[^\x00\s/@\"'<>]+@"

_SEPARATOR: Final = "\0"
"""Between texts that are looked at together: no shape goes beyond it, and no text has one (`_REPLACED`)."""
_REPLACED: Final = "\ufffd"

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
    """`text` without what looks like a secret. If anything is hidden in it, U+FFFD stands for each NUL."""
    if _SEPARATOR not in text:
        return _without_shapes(text)
    replaced = text.replace(_SEPARATOR, _REPLACED)
    found = _without_shapes(replaced)
    return text if found == replaced else found


def _without_shapes(text: str) -> str:
    """See `without_shapes`; the NULs of `text` separate texts that are looked at apart."""
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
    alone; one that is long, cut off.
    """
    parts = [secret, *secret.splitlines(), *_inner(secret)]
    parts += [part[at : at + LONG] for part in parts if len(part) > LONG for at in range(0, len(part), LONG)]
    for part in dict.fromkeys(one.strip() for one in parts):
        if len(part) >= MIN_KNOWN:
            yield from dict.fromkeys((part, *_in_urls(part), *_in_json(part), *_in_base64(part)))


def _in_urls(part: str) -> Iterator[str]:
    kept = [quote(part, signs, errors="surrogatepass") for signs in _KEPT_IN_URLS]
    in_python, *others = (quote_plus(part, signs, errors="surrogatepass") for signs in ("", *_KEPT_IN_FORMS))
    for found in (*kept, in_python, *(one.replace("~", "%7E") for one in others)):
        yield found
        yield _ESCAPE_IN_URL.sub(lambda escape: escape[0].lower(), found)


def _in_json(part: str) -> Iterator[str]:
    for is_ascii in (False, True):
        plain = json.dumps(part, ensure_ascii=is_ascii)[1:-1]
        for escaped in _ESCAPED_IN_JSON:
            found = plain
            for one in escaped:
                # A quote has its backslash already, and a slash gets nothing else.
                found = found.replace("\\" + one if one == '"' else one, "\\/" if one == "/" else f"\\u{ord(one):04x}")
            yield found
            yield _ESCAPE_IN_JSON.sub(lambda escape: "\\u" + escape[0][2:].upper(), found)


def _in_base64(part: str) -> Iterator[str]:
    """Less what its neighbours have a part in: a line end behind it, a name and a colon ahead of it (`Basic`)."""
    raw = part.encode("utf-8", "surrogatepass")
    for ahead in range(3):
        bits = 8 * (ahead + len(raw))
        found = base64.b64encode(bytes(ahead) + raw).decode()[(8 * ahead + 5) // 6 : bits // 6]
        yield found
        yield found.replace("+", "-").replace("/", "_")


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
        self._known: dict[str, int] = {}
        """Spellings, each with a piece of it."""
        self._pieces: set[int] = set()
        """All pieces, and perhaps some of what was forgotten."""
        for secret in secrets:
            self.learn(secret)

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, secret: str) -> None:
        """Look for this one too; not for one that its shape gives away."""
        if without_shapes(secret) == MASK:
            return
        for spelling in (one.replace(_SEPARATOR, _REPLACED) for one in spellings(secret)):
            self._known.pop(spelling, None)
            self._known[spelling] = piece = _piece(spelling)
            self._pieces.add(piece)
        if len(self._known) > MAX_KNOWN:
            while len(self._known) > MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._pieces = set(self._known.values())

    def without(self, text: str) -> str:
        """`text` without known secrets."""
        return _each(text, self._without)

    def scrubbed(self, text: str) -> str:
        """`text` without known secrets, and without what looks like one."""
        return _each(text, self._scrubbed)

    def without_in(self, value: Any) -> Any:
        """A JSON value without known secrets. See `in_json`."""
        return in_json(value, self._without)

    def scrubbed_in(self, value: Any) -> Any:
        """A JSON value without known secrets, and without what looks like one. See `in_json`."""
        return in_json(value, self._scrubbed)

    def _scrubbed(self, text: str) -> str:
        return _without_shapes(self._without(text))

    def _without(self, text: str) -> str:
        # Copies: a thread may look while the event loop learns.
        if len(self._known) <= FEW:
            met = [one for one in tuple(self._known) if one in text]
        else:
            pieces = _met(self._pieces, text.encode("utf-8", "surrogatepass"))
            known = tuple(self._known.items()) if pieces else ()
            met = [one for one, piece in known if piece in pieces and one in text]
        for secret in sorted(met, key=len, reverse=True):  # the longest first: a secret may be part of another
            text = text.replace(secret, MASK)
        return text


def _piece(secret: str) -> int:
    """The bytes in its middle, as a number: many secrets begin alike, as addresses and tokens of one issuer do."""
    raw = secret.encode("utf-8", "surrogatepass")
    begin = (len(raw) - PIECE) // 2
    return memoryview(raw[begin : begin + PIECE]).cast("Q")[0]


def _met(pieces: set[int], raw: bytes) -> set[int]:
    """Those of the pieces that are in a text: all of its bytes are compared as numbers, from each place on. In time
    that grows with the text alone, 17 ms for 256 KiB: an automaton of RE2 took seconds to be made for a random text.
    """
    met: set[int] = set()
    for begin in range(min(PIECE, len(raw) - PIECE + 1)):
        end = len(raw) - (len(raw) - begin) % PIECE
        met.update(pieces.intersection(memoryview(raw)[begin:end].cast("Q")))
    return met


def _each(text: str, scrub: Callable[[str], str]) -> str:
    """`scrub` on one text, which may have NULs in it."""
    if _SEPARATOR not in text:
        return scrub(text)
    replaced = text.replace(_SEPARATOR, _REPLACED)
    found = scrub(replaced)
    return text if found == replaced else found


def in_json(value: Any, scrub: Callable[[str], str]) -> Any:
    """A JSON value with every text in it scrubbed, names of members included; what changes nothing is the same object.

    All texts are looked at together, so that many small ones take no longer than a long one. `scrub` is given them with
    NULs between them, and leaves those as they are. Bytes in base64 (`blob`, and `data` of pictures and sounds) are
    not looked at.
    """
    texts: list[str] = []
    is_whole = _gather(value, texts, 0)
    together = _SEPARATOR.join(texts)
    found = scrub(together)
    if is_whole and found == together:
        return value
    return _rebuilt(value, iter(found.split(_SEPARATOR)), 0)


def _gather(value: Any, texts: list[str], depth: int) -> bool:
    """Every text to look at, in the order in which `_rebuilt` takes them; whether nothing is too deep for that."""
    if isinstance(value, str):
        texts.append(value.replace(_SEPARATOR, _REPLACED))
    elif is_array(value):
        if depth >= MAX_DEPTH:
            return False
        is_whole = True
        for one in value:
            is_whole = _gather(one, texts, depth + 1) and is_whole
        return is_whole
    elif is_object(value):
        if depth >= MAX_DEPTH:
            return False
        opaque, is_whole = _opaque(value), True
        for name, one in value.items():
            texts.append(name.replace(_SEPARATOR, _REPLACED))
            if not (name in opaque and isinstance(one, str)):
                is_whole = _gather(one, texts, depth + 1) and is_whole
        return is_whole
    return True


def _rebuilt(value: Any, texts: Iterator[str], depth: int) -> Any:
    if isinstance(value, str):
        return next(texts)
    if is_array(value):
        return [_rebuilt(one, texts, depth + 1) for one in value] if depth < MAX_DEPTH else MASK
    if is_object(value):
        if depth >= MAX_DEPTH:
            return MASK
        opaque = _opaque(value)
        return {
            next(texts): one if name in opaque and isinstance(one, str) else _rebuilt(one, texts, depth + 1)
            for name, one in value.items()
        }
    return value


def _opaque(value: Mapping[str, Any]) -> frozenset[str]:
    """Members that hold bytes in base64."""
    return _OPAQUE_OF_MEDIA if value.get("type") in _OPAQUE_TYPES else _OPAQUE
