# Blocks arguments that a careless server would hand to a command line or to the file system:
#   - a value that begins with a dash, and so would be read as an option (--output=/etc/cron.d/x);
#   - a path outside the roots below, or with a `..` in it, or with a NUL.
#
#   guardrails:
#     no-injection: {file: argument_injection.py, phases: [request], kinds: [tools], servers: [git, fs]}

ROOTS = ["/srv/data", "/home/me/projects"]
# Arguments that may begin with a dash: texts for people.
PROSE = ["message", "text", "body", "content", "description", "title", "query"]


def inside(path):
    for root in ROOTS:
        if path == root or path.startswith(root + "/"):
            return True
    return False


def complaint(name, value):
    if "\x00" in value:
        return "a NUL"
    if re2.matches("^--?[A-Za-z0-9]", value) and name not in PROSE:
        return "an option where a value belongs"
    path = value
    if re2.matches("(?i)^file:", value):
        # In any spelling; an escape in it could be a separator or a dot for whoever opens it.
        path = re2.sub("(?i)^file:(//(localhost)?)?", "", value)
        if "%" in path:
            return "a path with escapes"
    if re2.matches("(^|[/\\\\])\\.\\.([/\\\\]|$)", path) and name not in PROSE:
        return "a path that climbs"
    if re2.matches("^([/\\\\~]|[A-Za-z]:[/\\\\])", path) and name not in PROSE and not inside(path):
        return "a path outside the roots"
    return None


def search(name, value):
    # The first complaint about anything in a value, with where it was.
    if isinstance(value, str):
        said = complaint(name, value)
        return None if said is None else name + ": " + said
    children = []
    if isinstance(value, dict):
        children = [(key, value[key]) for key in value]
    elif isinstance(value, list):
        children = [(name, child) for child in value]
    for key, child in children:
        said = search(key, child)
        if said is not None:
            return said
    return None


def check(ctx):
    said = search("", ctx["args"])
    if said is not None:
        return {"action": "block", "reason": said}
    return {"action": "allow"}
