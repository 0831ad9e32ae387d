"""Write requirements.lock, the pins of SDK 1 and of the peers, and tests/node/package-lock.json: `make lock`.

Each supported Python that is installed resolves the project in a fresh environment; what they agree on is one line,
what differs gets a marker. The newest speaks for those that are not installed. Names and versions only: no hashes,
which differ by platform, and no hosts, which differ by site.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
LOCK = ROOT / "requirements.lock"
NODE = ROOT / "tests" / "node"
SDK1 = ROOT / "tests" / "sdk1" / "requirements.txt"
PEERS = ROOT / "bench" / "peers" / "requirements.txt"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)$")
NORMAL = re.compile(r"[-_.]+")

Pins = dict[str, str]


def interpreter(version: str) -> str | None:
    """A python of that version that runs: a shim that only says "not installed" does not count."""
    for candidate in (f"python{version}", sys.executable, "python3"):
        path = shutil.which(candidate)
        code = "import sys, ensurepip; print('%d.%d' % sys.version_info[:2])"
        if path and subprocess.run([path, "-c", code], capture_output=True, text=True).stdout.strip() == version:
            return path
    return None


def resolve(python: str, *requirements: str) -> Pins:
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([python, "-m", "venv", directory], check=True)
        bin_dir = Path(directory) / ("Scripts" if sys.platform == "win32" else "bin")
        pip = [str(bin_dir / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", *requirements], check=True, cwd=ROOT)
        freeze = [*pip, "freeze", "--exclude-editable", "--exclude", "mcp-broker"]
        frozen = subprocess.run(freeze, check=True, capture_output=True, text=True).stdout
    matches = (PIN.match(line) for line in frozen.splitlines())
    return {NORMAL.sub("-", match[1]).lower(): match[2] for match in matches if match}


def lines(resolved: dict[str, Pins]) -> list[str]:
    """One line for each pin; a marker where two Pythons disagree."""
    written: list[str] = []
    versions = list(resolved)
    for name in sorted({name for pins in resolved.values() for name in pins}):
        chosen = {version: resolved[version].get(name) for version in versions}
        distinct = {pin for pin in chosen.values() if pin is not None}
        if len(distinct) == 1:
            written.append(f"{name}=={distinct.pop()}")
            continue
        for version, pin in chosen.items():
            relation = ">=" if version == versions[-1] else "=="
            if pin is not None:
                written.append(f'{name}=={pin}; python_version {relation} "{version}"')
    return written


def lock_node() -> None:
    """package-lock.json without `resolved`: npm fills in the registry that it is configured for."""
    npm = shutil.which("npm")
    if npm is None:
        print("npm is missing: tests/node/package-lock.json stays as it is")
        return
    # Elsewhere, since npm would copy what lies in node_modules, without the checksums.
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(NODE / "package.json", directory)
        command = [npm, "install", "--package-lock-only", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, check=True, cwd=directory, stdin=subprocess.DEVNULL)
        lock = json.loads((Path(directory) / "package-lock.json").read_text(encoding="utf-8"))
    for package in lock["packages"].values():
        package.pop("resolved", None)
    (NODE / "package-lock.json").write_text(json.dumps(lock, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    found = {version: path for version in PYTHONS if (path := interpreter(version)) is not None}
    if not found:
        print(f"none of {', '.join(PYTHONS)} is installed", file=sys.stderr)
        return 1
    print(f"resolving with {', '.join(found)}")
    resolved = {version: resolve(python, ".[dev]") for version, python in found.items()}
    head = f"# Written by `make lock` with Python {', '.join(found)}. Use: pip install -c requirements.lock -e '.[dev]'"
    LOCK.write_text("\n".join([head, *lines(resolved), ""]), encoding="utf-8")
    newest = list(found)[-1]
    sdk1 = {newest: resolve(found[newest], "mcp<2")}
    head = "# The SDK 1 client environment (.venv-sdk1). Written by `make lock`."
    SDK1.write_text("\n".join([head, *lines(sdk1), ""]), encoding="utf-8")
    peers = {newest: resolve(found[newest], "fastmcp>=4,<5")}
    head = "# FastMCP's proxy, to measure against (.venv-peers). Written by `make lock`."
    PEERS.write_text("\n".join([head, *lines(peers), ""]), encoding="utf-8")
    lock_node()
    print(f"wrote {LOCK.relative_to(ROOT)}, {SDK1.relative_to(ROOT)}, {PEERS.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
