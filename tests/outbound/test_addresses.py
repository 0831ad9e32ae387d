"""I-05, SP-90, SP-92: a matrix of URL spellings. None is connected to; a spy on the sockets says so."""

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import Any

import pytest

from broker.outbound.addresses import Forbidden, Target, judge, target_of
from broker.outbound.fetch import FetchFailed, Outbound

NAMES = {
    "rebind.example": ["10.0.0.5"],
    "metadata.example": ["169.254.169.254"],
    "two.example": ["93.184.216.34", "127.0.0.1"],
    "v6.example": ["fd00::1"],
    "mapped.example": ["::ffff:10.0.0.1"],
    "nat64.example": ["64:ff9b::a00:1"],
    "nowhere.example": [],
}
"""What a hostile name server says."""

SPELLINGS = [
    # addresses of this machine and of its network
    "https://127.0.0.1/",
    "https://127.0.0.1:8443/keys",
    "https://127.8.9.10/",
    "https://localhost/",
    "https://LOCALHOST/",
    "https://0.0.0.0/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://169.254.0.1/",
    "https://100.100.100.200/",
    "https://168.63.129.16/",
    "https://192.0.0.192/",
    "https://192.0.2.1/",
    "https://198.18.0.1/",
    "https://203.0.113.9/",
    "https://224.0.0.1/",
    "https://239.255.255.250/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    # other spellings of them
    "https://0x7f.1/",
    "https://0x7f000001/",
    "https://2130706433/",
    "https://017700000001/",
    "https://0177.0.0.1/",
    "https://127.1/",
    "https://127.0.1/",
    "https://0/",
    "https://0x0/",
    "https://127.0.0.1./",
    "https://localhost./",
    "https://127.0.0.01/",
    "https://\uff11\uff12\uff17.0.0.1/",
    "https://127。0。0。1/",
    "https://ⓛocalhost/",
    "https://127.0.0.1%2f@good.example/",
    "https://%31%32%37.0.0.1/",
    # IPv6, and IPv4 inside it
    "https://[::1]/",
    "https://[::]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::ffff:10.0.0.1]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::169.254.169.254]/",
    "https://[64:ff9b:1::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a00:1::1]/",
    "https://[2001:0:5ef5:79fb::1]/",
    "https://[2001:db8::1]/",
    "https://[2001:470:1:2:0:5efe:10.0.0.1]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fec0::1]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[ff02::1]/",
    "https://[::1",
    "https://[127.0.0.1]/",
    # names that lead there
    "https://rebind.example/",
    "https://metadata.example/",
    "https://two.example/",
    "https://v6.example/",
    "https://mapped.example/",
    "https://nat64.example/",
    "https://nowhere.example/",
    # not https, or not what it seems
    "http://good.example/",
    "HTTP://good.example/",
    "http://127.0.0.1/",
    "file:///etc/passwd",
    "ftp://good.example/",
    "gopher://127.0.0.1:6379/_x",
    "javascript:alert(1)",
    "data:application/json,{}",
    "//good.example/",
    "good.example/keys",
    "https:/good.example",
    "https:good.example",
    "https:///good.example",
    "https://",
    "https://user@good.example/",
    "https://user:secret@good.example/",
    "https://good.example@127.0.0.1/",
    "https://127.0.0.1#@good.example/",
    "https://127.0.0.1\\@good.example/",
    "https://good.example\\.evil/",
    "https://good.example\t/",
    "https://good.example\r\nHost: x/",
    " https://good.example/",
    "https://good .example/",
    "https://good.example/ x",
    "https://good_.example/",
    "https://-good.example/",
    "https://good..example/",
    "https://.example/",
    "https://*.example/",
    "https://good.example:0/",
    "https://good.example:65536/",
    "https://good.example:x/",
    "https://good.example:/",
    "https://good.example/\x00",
    "https://good.example/#fragment",
    "https://" + "a" * 64 + ".example/",
    "https://good.example/" + "x" * 3000,
    "",
]


async def resolve(host: str, port: int) -> Sequence[str]:
    if host in NAMES:
        return NAMES[host]
    if host.lower() == "localhost":
        return ["127.0.0.1", "::1"]
    raise AssertionError(f"{host} was looked up")


@pytest.mark.parametrize("url", SPELLINGS)
async def test_I05_SP90_nothing_is_connected_to_that_is_not_a_public_https_site(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", refuse)
    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", refuse)
    with pytest.raises(FetchFailed) as refused:
        await Outbound(resolve).get_json(url)
    assert "secret" not in str(refused.value)


async def test_the_matrix_would_see_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same spy, with a name that leads to a public address: it is called, with that address."""
    tried: list[Any] = []

    async def spy(*, addr_infos: Any, **_: object) -> None:
        tried.extend(info[4][0] for info in addr_infos)
        raise ConnectionRefusedError(111, "refused")

    async def public(host: str, port: int) -> Sequence[str]:
        return ["93.184.216.34"]

    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", spy)
    with pytest.raises(FetchFailed, match="cannot connect"):
        await Outbound(public).get_json("https://good.example/keys")
    assert tried == ["93.184.216.34"]


@pytest.mark.parametrize(
    ("url", "answers"),
    [
        ("http://127.0.0.1:1/", True),
        ("http://[::1]:1/", True),
        ("http://localhost:1/", True),
        ("https://10.1.2.3:1/", True),
        ("https://192.168.0.9:1/", True),
        ("https://[fd12::1]:1/", True),
        ("http://10.1.2.3/", False),
        ("http://[fd12::1]/", False),
        ("http://93.184.216.34/", False),
        ("https://169.254.169.254/", False),
        ("https://[fe80::1]/", False),
        ("https://[fd00:ec2::254]/", False),
        ("https://100.100.100.200/", False),
        ("https://0.0.0.0/", False),
        ("https://224.0.0.1/", False),
        ("https://255.255.255.255/", False),
        ("https://[::ffff:169.254.169.254]/", False),
        ("https://[64:ff9b::169.254.169.254]/", False),
        ("file:///etc/passwd", False),
    ],
)
def test_SP92_what_an_operator_may_allow_is_private_never_link_local(url: str, answers: bool) -> None:
    if answers:
        assert target_of(url, allow_private=True).url == url
    else:
        with pytest.raises(Forbidden):
            target_of(url, allow_private=True)


@pytest.mark.parametrize("text", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:93.184.216.34"])
def test_public_addresses_are_reached(text: str) -> None:
    judge(ipaddress.ip_address(text), Target("", True, "good.example", 443, None), allow_private=False)
