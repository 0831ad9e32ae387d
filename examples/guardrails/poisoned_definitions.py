# Leaves out definitions and instructions that speak to the model about anything but themselves: about other tools, about
# what to hide from the user, about earlier instructions, about where to send what it knows.
#
#   guardrails:
#     no-poison: {file: poisoned_definitions.py, phases: [definition]}

PATTERNS = [
    "(?i)\\b(ignore|disregard|forget|override)\\b.{0,40}\\b(instructions?|rules|guidelines|prompts?)\\b",
    "(?i)\\b(do not|don.t|never|without)\\b.{0,40}\\b(tell|telling|mention|mentioning|inform|informing|reveal|show|notify)\\b.{0,40}\\b(user|human|operator)s?\\b",
    "(?i)\\b(before|after|instead of|prior to|whenever|when)\\b.{0,40}\\b(using|calling|invoking|use|call|invoke|run)\\b.{0,30}\\b(any|other|another|all|every)\\b.{0,20}\\btools?\\b",
    "(?i)\\b(instead of|rather than|do not use|don.t use|never use)\\b.{0,60}\\b(tool|server|function)s?\\b",
    "(?i)<\\s*/?\\s*(important|system|secret|hidden|instructions?|admin)\\b[^>]*>",
    "(?i)\\b(system prompt|hidden instruction|secret instruction)s?\\b",
    "(?i)\\b(send|forward|post|upload|exfiltrate|include|append|attach)\\b.{0,80}\\b(conversation|chat history|credentials?|passwords?|api keys?|private keys?|environment variables?|\\.env|id_rsa|\\.ssh)\\b",
]
NAME = "\\b[a-z][a-z0-9-]{0,31}__[A-Za-z0-9_-]+"


def texts(value):
    # Every text in a definition that a model may read, names of arguments too, as one line.
    if isinstance(value, str):
        return [re2.sub("\\s+", " ", value)]
    found = texts(list(value)) if isinstance(value, dict) else []
    children = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    for child in children:
        found.extend(texts(child))
    return found


def check(ctx):
    own = ctx["server"] + "__"
    for text in texts(ctx["definition"]):
        for pattern in PATTERNS:
            found = re2.search(pattern, text)
            if found is not None:
                return {"action": "block", "reason": "it says: " + found[0][:100]}
        for name in re2.findall(NAME, text):
            if not name.startswith(own):
                return {"action": "block", "reason": "it names a tool of another server: " + name[:100]}
    return {"action": "allow"}
