# Replaces secrets and personal data in what servers answer: well-known token shapes, private keys, mail addresses, card
# numbers (that pass the Luhn check), IBANs. What is no text (images, blobs) is left as it is.
#
#   guardrails:
#     redact: {file: redact.py, phases: [result, question]}

PATTERNS = [
    ("key", "-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\\s]*(-----END [A-Z ]*PRIVATE KEY-----)?"),
    (
        "token",
        "\\b(sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}|glpat-[A-Za-z0-9_-]{20,})",
    ),
    (
        "token",
        "\\b(xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[0-9A-Z]{16}|AIza[A-Za-z0-9_-]{35}|mcpb_[a-z2-7]{12}_[A-Za-z0-9_-]{43})",
    ),
    ("token", "\\beyJ[A-Za-z0-9_-]{8,}\\.[A-Za-z0-9_-]{8,}\\.[A-Za-z0-9_-]{8,}"),
    ("token", "(?i)\\bbearer\\s+[A-Za-z0-9._~+/-]{16,}=*"),
    ("mail", "\\b[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\\.[A-Za-z0-9-]+)*\\.[A-Za-z]{2,}\\b"),
    ("iban", "\\b[A-Z]{2}[0-9]{2}( ?[A-Z0-9]{4}){3,7}( ?[A-Z0-9]{1,3})?\\b"),
]
CARD = "\\b[0-9](?:[ -]?[0-9]){12,18}\\b"
# Not texts for a reader, or names that must stay what they are. In what a server structures as it likes there are none.
KEPT = ["type", "mimeType", "data", "blob", "uri", "role", "resultType", "method", "mode", "requestedSchema"]
FREE = ["structuredContent", "_meta"]


def is_card(text):
    digits = [int(char) for char in text if char.isdigit()]
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def redacted(text):
    for what, pattern in PATTERNS:
        text = re2.sub(pattern, "[" + what + " removed]", text)
    for found in re2.findall(CARD, text):
        if is_card(found):
            text = text.replace(found, "[card removed]")
    return text


def walk(value, is_free):
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, list):
        return [walk(one, is_free) for one in value]
    if isinstance(value, dict):
        cleaned = {}
        for key in value:
            if key in KEPT and not is_free:
                cleaned[key] = value[key]
            else:
                cleaned[redacted(key)] = walk(value[key], is_free or key in FREE)
        return cleaned
    return value


def check(ctx):
    member = ctx["phase"]
    cleaned = walk(ctx[member], False)
    if cleaned == ctx[member]:
        return {"action": "allow"}
    return {"action": "modify", member: cleaned}
