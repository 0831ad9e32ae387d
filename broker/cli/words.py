"""Words for people, made of what anybody may have written."""

from broker.errors import printable


def line(text: object, limit: int = 200) -> str:
    """Any text as a part of one line."""
    return printable(" ".join(str(text).split()), limit)


def block(text: str) -> str:
    """Any text with its lines and tabs kept, and every other control character escaped."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(printable(part, len(part)) for part in row.split("\t")) for row in lines)


def count(number: int, what: str) -> str:
    """`1 tool`, `2 tools`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
