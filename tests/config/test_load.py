"""The edges of loading: bounds, encodings, places of problems, fingerprints, and that nothing else is raised."""

import ast
import hashlib
import json
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

import broker.config
from broker.config import Config, ConfigError, HttpServer, Loaded, Problem, Secret, StdioServer, load, reveal
from broker.config import model as model_module
from broker.config.checks import ServerFacts, conflicts
from broker.config.read_json import read_json
from broker.config.translate import SERVER_FIELDS
from tests.fuzz.examples import at_least

Load = Callable[..., Loaded]
Problems = Callable[..., tuple[Problem, ...]]
PLANTED = {"S": "hunter2"}
ONE = "servers:\n  a: {command: run}\n"


def try_load(raw: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, name)
        path.write_bytes(raw)
        try:
            load(path, {"X": "x"})
        except ConfigError as error:
            assert error.problems


NAMES = st.sampled_from(["a.yaml", "a.json"])
TEXTS = st.sampled_from(["a", "x", "", "${env:X}", "${env:Y}", "http://h", "get_*", "sse", "2026-07-28", "\0", "é"])
KEYS = st.sampled_from(
    sorted(
        {*SERVER_FIELDS, *Config.model_fields, "mcpServers", "inputs", "type", "id", "a", "b", "allow", "text", "<<"}
    )
)
VALUES = st.recursive(
    TEXTS | st.booleans() | st.none() | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
SERVERS = st.dictionaries(TEXTS | st.just("b"), st.dictionaries(KEYS, VALUES, max_size=6) | VALUES, max_size=3)
FILES = st.dictionaries(KEYS, VALUES, max_size=4) | st.builds(
    lambda section, servers, rest: {**rest, section: servers},
    st.sampled_from(["servers", "mcpServers", "groups"]),
    SERVERS,
    st.dictionaries(KEYS, VALUES, max_size=2),
)


@settings(max_examples=at_least(300), deadline=None)
@given(raw=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8")), name=NAMES)
def test_random_bytes_raise_nothing_but_config_errors(raw: bytes, name: str) -> None:
    try_load(raw, name)


@settings(max_examples=at_least(300), deadline=None)
@given(text=st.text(alphabet="{}[]:,-&*!|>'\"\\ \n\ta1<#%@`?~./", max_size=80), name=NAMES)
def test_random_syntax_raises_nothing_but_config_errors(text: str, name: str) -> None:
    try_load(text.encode(), name)


@settings(max_examples=at_least(400), deadline=None)
@given(data=FILES, as_json=st.booleans(), name=NAMES)
def test_random_data_of_nearly_our_shape_raises_nothing_but_config_errors(
    data: object, as_json: bool, name: str
) -> None:
    text = json.dumps(data) if as_json else str(yaml.safe_dump(data, allow_unicode=True))
    try_load(text.encode(), name)


@settings(max_examples=at_least(200), deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(st.characters(codec="utf-8")),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
        max_leaves=20,
    ),
    st.booleans(),
)
def test_all_json_reads_as_the_standard_library_reads_it(data: object, ascii_only: bool) -> None:
    text = json.dumps(data, ensure_ascii=ascii_only, indent="\t")
    assert read_json(text).data == data


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b"", "the file is empty"),
        (b"# only this\n", "the file is empty"),
        (b"a: \xff", "not UTF-8"),
        (b"a\n\nb: \x01", "control character"),
        (b" " * (1 << 20) + b"x", "larger than 1048576 bytes"),
        (b"[" * 100_000, "nested deeper than 64 levels"),
        (b"a: [" + b"x," * 30_000 + b"]", "more than 10000 values"),
        (b"a: &a [*a]", "anchor"),
        (b"? [a]\n: b", "a key must be a text"),
        (b"servers: {<<: 3}", "<< needs a mapping"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_problem(problems_of: Problems, raw: bytes, part: str) -> None:
    (problem,) = problems_of(raw)
    assert part in str(problem)


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000, b"[" + b"0," * 30_000 + b"]", b"/*", b'"\\ud800"'])
def test_json_beyond_a_bound_is_one_problem(problems_of: Problems, raw: bytes) -> None:
    (problem,) = problems_of(raw, name="a.json")
    assert "JSON syntax" in problem.message


def test_missing_files_and_directories_say_so(tmp_path: Path) -> None:
    for path, part in [
        (tmp_path / "no", "no such file"),
        (tmp_path, "a directory"),
        (Path("a\0b"), "not a valid path"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load(path, {})
        assert part in str(caught.value)


def test_a_byte_order_mark_is_no_content(load_text: Load) -> None:
    assert "a" in load_text(b"\xef\xbb\xbf" + ONE.encode()).config.servers


def test_a_missing_secret_names_line_key_and_variable(problems_of: Problems) -> None:
    (problem,) = problems_of("servers:\n  a:\n    url: https://x\n    headers:\n      Authorization: ${env:NOPE}\n")
    assert (problem.line, problem.key) == (5, "servers.a.headers.Authorization")
    assert "NOPE" in problem.message


def test_no_error_holds_a_secret_however_it_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        'servers:\n  a: {url: "ftp://${env:S}", headers: {A: "${env:S}\\n", B: "hunter2\\r"}}\n'
        '  b: {command: "${env:S}\\0", args: ["${env:S}\\0"], env: {A: "hunter2\\0"}, cwd: "${env:S}\\0", hunter: 2}\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(path, PLANTED)
    chain: list[BaseException] = [caught.value]
    while (cause := chain[-1].__context__) is not None:
        chain.append(cause)
    printed = "".join(traceback.format_exception(caught.value)) + "".join(map(repr, chain))
    assert len(caught.value.problems) == 8
    assert "hunter2" not in printed


def test_a_fingerprint_follows_what_reaches_the_server_and_nothing_else(load_text: Load) -> None:
    def fingerprint(fields: str, secret: str = "s") -> str:
        return load_text(f"servers: {{a: {{{fields}}}}}", {"S": secret}).fingerprints["a"]

    base = fingerprint("command: run, env: {T: '${env:S}'}")
    assert base == fingerprint("env: {T: '${env:S}'}, command: run", "rotated")
    assert base == fingerprint("command: run, env: {T: '${env:S}'}, timeout: 3, prefix: x, args: [], protocol: auto")
    others = ["command: run", "command: run, env: {T: s}", "command: run, env: {T: '${env:S}'}, args: [a]"]
    assert len({base, *(fingerprint(other) for other in others)}) == 4


def test_equal_models_mean_equal_secrets(load_text: Load) -> None:
    text = "servers: {a: {command: run, env: {T: '${env:S}'}}}"
    assert load_text(text, {"S": "1"}).config == load_text(text, {"S": "1"}).config
    assert load_text(text, {"S": "1"}).config != load_text(text, {"S": "2"}).config


def test_a_configuration_cannot_be_changed(load_text: Load) -> None:
    server = load_text("servers: {a: {command: run, env: {T: t}}}").config.servers["a"]
    with pytest.raises(ValidationError):
        server.timeout = 1  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(server, StdioServer)
    with pytest.raises(TypeError):
        server.env["T"] = Secret("x")  # pyright: ignore[reportIndexIssue]


def test_a_model_made_by_hand_has_no_conflicts_either() -> None:
    with pytest.raises(ValidationError, match="two owners"):
        Config.model_validate({"servers": {"a": {"command": "x"}, "b": {"command": "x", "prefix": "a"}}})


def test_a_prefix_equal_to_its_own_key_is_no_conflict() -> None:
    assert not conflicts({"a": ServerFacts(prefix="a"), "b": ServerFacts(prefix="")}, {"g": ["a"]})


def test_the_default_connect_timeout_is_longer_for_commands(load_text: Load) -> None:
    servers = load_text("servers: {a: {command: run}, b: {url: 'https://x'}}").config.servers
    assert (servers["a"].connect_timeout, servers["b"].connect_timeout) == (60, 10)


@pytest.mark.parametrize(
    "url",
    ["http://", "//x", "https://a b", "https://x\\y", "https://x:99999", "https://[::1", "https://x#f", "https://é"],
)
def test_a_url_that_could_mean_two_things_is_refused(problems_of: Problems, url: str) -> None:
    (problem,) = problems_of(json.dumps({"servers": {"a": {"url": url}}}))
    assert problem.key == "servers.a.url"


@pytest.mark.parametrize("name", ["Host", "content-LENGTH", "MCP-Session-Id", "mcp-param-x", "Connection", "a b", ""])
def test_headers_of_the_broker_and_names_that_are_none_are_refused(problems_of: Problems, name: str) -> None:
    assert len(problems_of(json.dumps({"servers": {"a": {"url": "https://x", "headers": {name: "v"}}}}))) == 1


def test_the_workspace_of_a_file_in_a_host_directory_is_the_parent(load_text: Load, tmp_path: Path) -> None:
    text = '{"servers": {"a": {"command": "${workspaceFolder}/run"}}, "inputs": []}'
    for name, workspace in [("mcp.json", tmp_path), (".vscode/mcp.json", tmp_path)]:
        server = load_text(text, name=name).config.servers["a"]
        assert isinstance(server, StdioServer)
        assert server.command == f"{workspace}/run"


def test_an_input_is_read_from_its_variable(load_text: Load) -> None:
    text = '{"inputs": [], "servers": {"a": {"url": "https://x", "headers": {"K": "${input:my key}"}}}}'
    server = load_text(text, {"INPUT_MY_KEY": "v"}, name="mcp.json").config.servers["a"]
    assert isinstance(server, HttpServer)
    assert reveal(server.headers["K"]) == "v"


def test_a_problem_of_a_renamed_server_stands_where_the_file_has_it(problems_of: Problems) -> None:
    text = '{"mcpServers": {\n"A B": {\n"serverUrl":\n"ftp://x"}}}'
    (problem,) = problems_of(text, name="x.json")
    assert (problem.line, problem.key) == (3, "mcpServers.A B.serverUrl")


def test_every_field_is_documented() -> None:
    models = [
        value for value in vars(model_module).values() if isinstance(value, type) and issubclass(value, BaseModel)
    ]
    missing = [
        f"{model.__name__}.{name}"
        for model in models
        for name, info in model.model_fields.items()
        if not info.description
    ]
    assert not missing
    assert Config.model_json_schema()["additionalProperties"] is False


def test_the_package_imports_nothing_but_what_its_layer_may() -> None:
    layers = ("config", "core", "clock", "errors", "secrecy", "workers.assignment")
    allowed = (*(f"broker.{name}" for name in layers), "pydantic", "yaml")
    root = Path(broker.config.__file__).parent
    imported: set[str] = set()
    for path in root.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
            elif isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
    ours = {name for name in imported if name.split(".")[0] in {"broker", "pydantic", "pydantic_core", "yaml"}}
    assert all(name.startswith(allowed) for name in ours)


def test_what_is_wrong_with_guardrails_is_said_with_its_line(tmp_path: Path, problems_of: Problems) -> None:
    (tmp_path / "fine.py").write_text("x", encoding="utf-8")
    (tmp_path / "long.py").write_bytes(b"#" * 70_000)
    found = problems_of(
        "servers:\n"
        "  time: {command: x}\n"
        "guardrails:\n"
        "  a: {file: fine.py, phases: [request], servers: [tme]}\n"
        "  b: {file: none.py, phases: [requests], team: [x]}\n"
        "  c: {file: fine.py, phases: []}\n"
        "  d: {file: fine.py, phases: [definition, request], teams: [x/y], keys: [k]}\n"
        "  e: {file: long.py, phases: [result], timeout: 6, memory: 8, kinds: [instructions]}\n"
        "  f: {phases: [result]}\n"
        "  a: {file: fine.py, phases: [request]}\n"
        "  g: {file: '', phases: [question], names: ['^x$', '**']}\n"
        "  H: {file: ., phases: [question]}\n"
    )
    assert [(problem.line, problem.key, problem.message) for problem in found] == [
        (4, "guardrails.a.servers.0", 'there is no server "tme"'),
        (5, "guardrails.b.file", "cannot be read (no such file or directory)"),
        (5, "guardrails.b.phases.0", "must be request, result, definition or question"),
        (5, "guardrails.b.team", "unknown key"),
        (6, "guardrails.c.phases", "must not be empty"),
        (7, "guardrails.d.teams", "definitions are judged when they are discovered, for all callers alike"),
        (7, "guardrails.d.keys", "definitions are judged when they are discovered, for all callers alike"),
        (8, "guardrails.e.kinds.0", "instructions are judged as definitions"),
        (8, "guardrails.e.file", "larger than 65536 bytes"),
        (8, "guardrails.e.timeout", "must be at most 5"),
        (8, "guardrails.e.memory", "must be at least 16"),
        (9, "guardrails.f", "file is missing"),
        (10, "guardrails.a", "duplicate key, first used in line 4"),
        (11, "guardrails.g.file", "must be a path"),
        (11, "guardrails.g.names.1", "** is not a pattern"),
        (12, "guardrails.H.file", "cannot be read (is a directory)"),
        (12, "guardrails.H", "a name must be 1 to 32 of a-z, 0-9 and -, and begin with a letter"),
    ]


def test_the_texts_of_guardrails_are_read_with_the_file_that_names_them(tmp_path: Path, load_text: Load) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "one.py").write_text("def check(ctx): ...", encoding="utf-8")
    loaded = load_text("servers: {}\nguardrails:\n  one: {file: rules/one.py, phases: [request, result]}\n")
    text = loaded.texts["one"]
    assert (text.text, text.path) == (b"def check(ctx): ...", tmp_path / "rules" / "one.py")
    assert text.sha256 == hashlib.sha256(text.text).hexdigest()
    settings = loaded.config.guardrails["one"]
    assert (settings.timeout, settings.memory, settings.max_size, settings.servers) == (0.25, 64, 1024, None)


def test_organizations_that_only_a_guardrail_names_are_said(tmp_path: Path, load_text: Load) -> None:
    (tmp_path / "one.py").write_text("def check(ctx): ...", encoding="utf-8")
    loaded = load_text(
        "servers: {a: {command: x}}\n"
        "organizations: {acme: {allow: [{servers: [a]}], keys: {k: {hash: '" + "0" * 64 + "'}}}}\n"
        "guardrails:\n"
        "  one: {file: one.py, phases: [request], organizations: [acme, amce, '*'], teams: [acme/x, other/x, '*/x']}\n"
    )
    assert [(one.key, one.message, one.remedy) for one in loaded.warnings] == [
        ("guardrails.one.organizations.1", 'there is no organization "amce" in this file', 'Did you mean "acme"?'),
        (
            "guardrails.one.teams.1",
            'there is no organization "other" in this file',
            "One that is made at run time may have that name.",
        ),
    ]


def test_the_store_s_url_is_checked_masked_and_asks_for_a_key_secret_of_its_own(tmp_path: Path) -> None:
    def loaded(url: str, rest: str = "") -> Loaded:
        path = tmp_path / "servers.yaml"
        path.write_text(f"{ONE}store: {{url: '{url}'}}\n{rest}", encoding="utf-8")
        return load(path, PLANTED)

    known = loaded("postgresql://me:${env:S}@db.example/broker")
    assert known.config.store.url == Secret("postgresql://me:hunter2@db.example/broker")
    assert "hunter2" not in repr(known) and "hunter2" not in str(known.config.model_dump())
    assert ["key secret that only this one has" in problem.message for problem in known.warnings] == [True]
    assert not loaded("postgres://db.example/broker", f"identity: {{key_secret: {'k' * 32}}}\n").warnings
    for url in ("mysql://db.example/broker", "postgresql://db.example", "postgresql:///broker", "x"):
        with pytest.raises(ConfigError, match=r"servers\.yaml:3: store\.url: ") as refused:
            loaded(url)
        assert url not in str(refused.value) or url == "x"
