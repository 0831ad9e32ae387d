"""Public names: who owns which, what they look like, and that they lead back."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from broker.core.names import Mount, Naming

HOST_NAME = re.compile(r"\A[a-zA-Z0-9_-]{1,64}\Z")
"""What Claude Desktop takes; it drops a whole server for one other name."""

WORDS = st.from_regex(r"\A[a-z][a-z0-9-]{0,31}\Z")
FEW_WORDS = st.sampled_from(["a", "b", "ab", "a-b", "git", "github", "http", "ui", "mailto", "x" * 32])
PREFIXES = st.lists(WORDS | FEW_WORDS, min_size=1, max_size=5, unique=True)
MAX_LENGTHS = st.integers(min_value=42, max_value=64)

_PIECES = st.sampled_from(
    [
        "a",
        "b",
        "git",
        "_",
        "__",
        "___",
        "-",
        ".",
        "+",
        "é",
        "\uff21",
        "\u202e",
        "\0",
        "/",
        " ",
        "x" * 40,
        "y" * 64,
        "ui://",
    ]
)
OWN_NAMES = st.text(min_size=1, max_size=90) | st.lists(_PIECES, min_size=1, max_size=6).map("".join)
OWN_URIS = (
    st.sampled_from(
        [
            "file:///x",
            "probe://docs/{id}",
            "{/id*}{?tags*}",
            "mailto:a+b@c.d",
            "ui://rest",
            "ui://a+b",
            "ui://",
            "a+file:///x",
            "git+ssh://host/x+y",
            "+",
            "++",
            "ui://+",
            "http://a+b/",
            "data:,a+b",
        ]
    )
    | st.text(min_size=1, max_size=40)
    | st.lists(_PIECES, min_size=1, max_size=6).map("".join)
)


def naming_of(prefixes: list[str], max_length: int = 47) -> Naming:
    """One server for each prefix; its key is no prefix of another, so that no test takes one for the other."""
    return Naming.of((Mount(f"key-{prefix}", prefix) for prefix in prefixes), max_length)


@pytest.mark.parametrize(
    ("prefix", "own", "public"),
    [
        ("github", "search_repos", "github__search_repos"),
        ("github", "other__x", "github__other__x"),
        ("github", "_x_", "github___x_"),
        ("", "search_repos", "search_repos"),
        ("", "x" * 64, "x" * 64),
    ],
)
def test_a_valid_name_keeps_its_characters(prefix: str, own: str, public: str) -> None:
    naming = naming_of([prefix])
    assert naming.publish_name(naming.mounts[0], own) == public


@pytest.mark.parametrize(
    ("prefix", "own", "pattern"),
    [
        ("github", "repos.list", r"github__repos_list_[0-9a-f]{6}"),
        ("github", "名前", r"github_____[0-9a-f]{6}"),
        ("github", "x" * 60, r"github__x{32}_[0-9a-f]{6}"),
        ("", "repos.list", r"repos_list_[0-9a-f]{6}"),
        ("", "x" * 65, r"x{40}_[0-9a-f]{6}"),
    ],
)
def test_a_changed_or_shortened_name_ends_in_a_hash(prefix: str, own: str, pattern: str) -> None:
    naming = naming_of([prefix])
    public = naming.publish_name(naming.mounts[0], own)
    assert public is not None and re.fullmatch(pattern, public)


def test_names_that_differ_only_in_what_was_changed_stay_apart() -> None:
    naming = naming_of(["a"])
    own = ["x.y", "x/y", "x y", "x\u202ey", "\uff58.y", "x.Y", *("z" * 500 + str(number) for number in range(5))]
    assert len({naming.publish_name(naming.mounts[0], name) for name in own}) == len(own)


@given(PREFIXES, OWN_NAMES, MAX_LENGTHS)
def test_every_public_name_is_one_that_hosts_take(prefixes: list[str], own: str, max_length: int) -> None:
    naming = naming_of([*prefixes, ""], max_length)
    for mount in naming.mounts:
        public = naming.publish_name(mount, own)
        if mount.prefix:
            assert public is not None and len(public) <= max_length and public.startswith(f"{mount.prefix}__")
        assert public is None or HOST_NAME.match(public)


@given(PREFIXES, OWN_NAMES, OWN_NAMES, MAX_LENGTHS)
def test_two_servers_never_get_the_same_public_name(prefixes: list[str], one: str, other: str, max_length: int) -> None:
    naming = naming_of([*prefixes, ""], max_length)
    published = [
        (mount.key, public)
        for mount in naming.mounts
        for own in {one, other, *(f"{prefix}__{one}" for prefix in prefixes)}
        if (public := naming.publish_name(mount, own)) is not None
    ]
    owners: dict[str, str] = {}
    for key, public in published:
        assert owners.setdefault(public, key) == key


@given(PREFIXES, WORDS | FEW_WORDS, OWN_NAMES, OWN_URIS, MAX_LENGTHS)
def test_another_server_renames_nothing(prefixes: list[str], new: str, own: str, uri: str, max_length: int) -> None:
    assume(new not in prefixes)
    before, after = naming_of([*prefixes, ""], max_length), naming_of([*prefixes, "", new], max_length)
    for mount in before.mounts:
        name, name_after = before.publish_name(mount, own), after.publish_name(mount, own)
        public, public_after = before.publish_uri(mount, uri), after.publish_uri(mount, uri)
        if mount.prefix:
            assert (name, public) == (name_after, public_after)
            continue
        # The unprefixed server loses what has the form of the new one, and that only.
        assert name_after in (name, None) and public_after in (public, None)
        if name is not None and name_after is None:
            assert name.startswith(f"{new}__") or re.sub(r"[^A-Za-z0-9_-]", "_", own).startswith(f"{new}__")
        if public is not None and public_after is None:
            assert uri.startswith((f"{new}+", f"ui://{new}+"))


@given(PREFIXES, OWN_NAMES, MAX_LENGTHS, st.data())
def test_an_unprefixed_server_cannot_take_the_form_of_another(
    prefixes: list[str], own: str, max_length: int, data: st.DataObject
) -> None:
    naming = naming_of([*prefixes, ""], max_length)
    bare = naming.mounts[-1]
    prefix = data.draw(st.sampled_from(prefixes))
    separator = data.draw(st.sampled_from(["__", "..", "_.", "/_", "_\u200b"]))
    assert naming.publish_name(bare, prefix + separator + own) is None
    assert naming.publish_uri(bare, f"{prefix}+{own}") is None
    assert naming.publish_uri(bare, f"ui://{prefix}+{own}") is None
    public = naming.publish_name(bare, own)
    assert public is None or not public.startswith(tuple(f"{prefix}__" for prefix in prefixes))


def test_shortening_cannot_bring_the_form_of_another_in() -> None:
    """A name that is cut just behind `<prefix>_` gets `_` and the hash there: `<prefix>__<hash>`."""
    own = "x" * 32 + "_" + "-" * 40
    assert naming_of(["x" * 32, ""], 40).publish_name(Mount("key-", ""), own) is None
    assert naming_of(["x" * 32, ""], 42).publish_name(Mount("key-", ""), own) is not None


@given(PREFIXES, OWN_URIS)
def test_every_public_uri_leads_back(prefixes: list[str], own: str) -> None:
    naming = naming_of([*prefixes, ""])
    for mount in naming.mounts:
        public = naming.publish_uri(mount, own)
        if public is not None:
            assert naming.resolve_uri(public) == (mount, own)


@given(PREFIXES, OWN_URIS)
def test_two_servers_never_get_the_same_public_uri(prefixes: list[str], own: str) -> None:
    naming = naming_of([*prefixes, ""])
    uris = [own, *(f"{prefix}+{own}" for prefix in prefixes), *(f"ui://{prefix}+{own}" for prefix in prefixes)]
    owners: dict[str, str] = {}
    for mount in naming.mounts:
        for uri in uris:
            if (public := naming.publish_uri(mount, uri)) is not None:
                assert owners.setdefault(public, mount.key) == mount.key


@pytest.mark.parametrize(
    ("own", "public"),
    [
        ("file:///x", "github+file:///x"),
        ("probe://docs/{id}", "github+probe://docs/{id}"),
        ("mailto:a@b.c", "github+mailto:a@b.c"),
        ("github+file:///x", "github+github+file:///x"),
        ("ui://rest", "ui://github+rest"),
        ("ui://github+rest", "ui://github+github+rest"),
    ],
)
def test_a_uri_carries_the_word_of_its_server(own: str, public: str) -> None:
    naming = naming_of(["github"])
    assert naming.publish_uri(naming.mounts[0], own) == public
    assert naming.resolve_uri(public) == (naming.mounts[0], own)


@pytest.mark.parametrize("uri", ["file:///x", "nobody+file:///x", "+x", "ui://x", "ui://nobody+x", "ui://+x", ""])
def test_a_uri_of_no_known_form_goes_to_the_unprefixed_server(uri: str) -> None:
    naming = naming_of(["github", ""])
    assert naming.unprefixed is naming.mounts[1]
    assert naming.resolve_uri(uri) == (naming.mounts[1], uri)
    assert naming_of(["github"]).resolve_uri(uri) is None


def test_the_owner_of_a_name_is_known_by_its_form() -> None:
    naming = naming_of(["github", ""])
    github, bare = naming.mounts
    assert naming.owner_of_name("github__search") == (github, "search")
    assert naming.owner_of_name("github__a__b") == (github, "a__b")
    assert naming.owner_of_name("github_search") == (bare, "github_search")
    assert naming.owner_of_name("nobody__search") == (bare, "nobody__search")
    assert naming.owner_of_name("__search") == (bare, "__search")
    assert naming_of(["github"]).owner_of_name("search") is None


def test_without_an_unprefixed_server_there_is_none() -> None:
    assert naming_of(["a"]).unprefixed is None
