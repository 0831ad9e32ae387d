"""The merged instructions of one view: what an agent reads before it calls anything.

Every server's text stands in delimiters that name it and that it can neither close nor forge, in configuration
order, with its own tool names as the caller sees them. An upstream's text is untrusted: invisible characters, with
which a text can say one thing to a model and another to its reader, do not pass (I-39).
"""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from broker.core.cleaning import clean, cut

_DELIMITER = re.compile(r"<(?=\s*(?:/\s*)?instructions\b)", re.IGNORECASE)

_QUOTED = re.compile("([`\"'\u2018\u201c])([^`\"'\u2018\u2019\u201c\u201d\n]{1,256})(?=[`\"'\u2019\u201d])")
_WORD = re.compile(r"(?<![\w.\-/:])\w[\w.\-/:]*")
_IDENTIFIER = re.compile(r"[_\-.0-9]|.[A-Z]")

MAX_READ: Final = 4
"""Times its limit that is read of a text: an upstream may send megabytes, and each view would walk through them."""
CHARS_PER_TOKEN: Final = 4
"""The usual estimate for English text and JSON."""


@dataclass(frozen=True, slots=True)
class Part:
    """One server's contribution. `names` maps own tool and prompt names to public ones; `limit` is in characters."""

    server: str
    text: str
    names: Mapping[str, str]
    limit: int


def estimate_tokens(characters: int) -> int:
    """About how many tokens a text of this length costs a model."""
    return -(-characters // CHARS_PER_TOKEN)


def merge(parts: Sequence[Part], preamble: str | None, limit: int, *, visible: int) -> str | None:
    """The instructions of a view, or None if there are none.

    `visible` is how many servers the view shows: with one, and no preamble, its text stands without delimiters.
    `limit` (characters) bounds the whole.
    """
    texts = [(part.server, _text(part)) for part in parts]
    texts = [(server, text) for server, text in texts if text]
    lead = clean(preamble or "").strip()
    if not lead and visible == 1:
        return cut(texts[0][1], limit) if texts else None
    return _join(lead, [_block(server, text) for server, text in texts], limit) or None


def escape(text: str) -> str:
    """`text` in which no delimiter of ours can be read."""
    return _DELIMITER.sub("&lt;", text)


def rename(text: str, names: Mapping[str, str]) -> str:
    """`text` with a server's own tool and prompt names as the caller sees them.

    A name counts in backticks or quotes, before `(`, or as a bare word if it could be no word of a language: one
    with `_`, `-`, `.`, a digit or an inner capital. Everything else stays.
    """
    changed = {own: public for own, public in names.items() if own and own != public}
    if not changed:
        return text
    pieces: list[str] = []
    position = 0
    for match in _QUOTED.finditer(text):
        # `name` or `name(arguments)`; what is replaced here is not read again as bare words.
        name, call, rest = match[2].partition("(")
        if (public := changed.get(match[2])) is not None:
            name, call, rest = public, "", ""
        elif call and name in changed:
            name = changed[name]
        else:
            continue
        pieces += [_rename_bare(text[position : match.start()], changed), match[1], name, call, rest]
        position = match.end()
    pieces.append(_rename_bare(text[position:], changed))
    return "".join(pieces)


def _rename_bare(text: str, changed: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        word = match[0].rstrip(".-:/")
        public = changed.get(word)
        if public is None or not (_IDENTIFIER.search(word) or text.startswith("(", match.start() + len(word))):
            return match[0]
        return public + match[0][len(word) :]

    return _WORD.sub(replace, text)


def _text(part: Part) -> str:
    head = part.text[: MAX_READ * part.limit]
    return cut(rename(clean(head), part.names).strip(), part.limit, len(part.text) - len(head))


def _block(server: str, text: str) -> str:
    return f'<instructions server="{html.escape(server)}">\n{escape(text)}\n</instructions>'


def _join(lead: str, blocks: Sequence[str], limit: int) -> str:
    """Whole blocks while they fit; what does not is counted, so that nobody takes its silence for consent."""
    kept = list(blocks)
    size = sum(len(text) + 2 for text in (lead, *blocks) if text)
    note = ""
    while kept and size - 2 + len(note) > limit:
        size -= len(kept.pop()) + 2
        left = len(blocks) - len(kept)
        note = f"\n\n[cut: the instructions of {left} more server{'s' if left > 1 else ''} do not fit]"
    return cut(("\n\n".join(filter(None, (lead, *kept))) + note).lstrip(), limit)
