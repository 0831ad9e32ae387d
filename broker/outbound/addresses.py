"""Which addresses the broker may connect to when the URL is not the operator's own, and which URLs it may try at all.

Pure. A name is judged by every address it resolves to, never by how it is spelled; what is spelled in a way that two
readers may take for two hosts is refused before it is resolved.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

MAX_URL: Final = 2048
"""Characters. A longer one is no place of metadata."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)
"""Where clouds hand out the credentials of a machine, besides 169.254.169.254, which is link-local."""
_GLOBAL: Final = ipaddress.ip_network("2000::/3")
_UNIQUE_LOCAL: Final = ipaddress.ip_network("fc00::/7")
_SHARED: Final = ipaddress.ip_network("100.64.0.0/10")
_PRIVATE: Final = tuple(ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_TUNNELS: Final = tuple(ipaddress.ip_network(text) for text in ("2002::/16", "2001::/32"))
"""6to4 and Teredo: an IPv4 address in other clothes, and nobody's issuer is there."""

_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_URL: Final = re.compile(r"[!$-;=?-Z_a-z~\[\]]+")
"""Printable ASCII without quotes, `#`, `<`, `>`, `\\`, `^`, backquote, braces and `|`."""


class Forbidden(Exception):
    """The broker does not connect there. The text says why, without the URL."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be tried. `port` is the one that counts, given or not."""

    url: str
    is_secure: bool
    host: str
    port: int
    address: Address | None
    """The host, if it is an address itself."""

    @property
    def origin(self) -> tuple[bool, str, int]:
        """What two URLs of one site have in common."""
        return self.is_secure, self.host, self.port


def target_of(url: str, *, allow_private: bool) -> Target:
    """What a URL names. Plain http is left for loopback, where the operator allows private addresses.

    Raises: Forbidden.
    """
    if not 1 <= len(url) <= MAX_URL or not _URL.fullmatch(url):
        raise Forbidden("a URL must be printable ASCII without spaces, quotes, backslashes or a fragment")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Forbidden("this is not a URL") from None
    if not re.match(r"https?://[^/]", url):
        raise Forbidden("only https is fetched")
    if "@" in parts.netloc:
        raise Forbidden("a URL must not contain a user name or password")
    if port == 0 or parts.netloc.endswith(":"):
        raise Forbidden("this is not a port")
    host = parts.hostname or ""
    address = _literal(parts.netloc, host)
    is_secure = parts.scheme == "https"
    if not is_secure and not allow_private:
        raise Forbidden("only https is fetched")
    target = Target(url, is_secure, host, port or (443 if is_secure else 80), address)
    if address is not None:
        judge(address, target, allow_private=allow_private)
    return target


def _literal(netloc: str, host: str) -> Address | None:
    if netloc.startswith("["):
        try:
            return ipaddress.IPv6Address(host) if "%" not in host else _no_host()
        except ValueError:
            return _no_host()
    if not _HOST.fullmatch(host):
        return _no_host()
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        # Some readers take `0x7f.1`, `2130706433` and `0177.0.0.1` for addresses: only the one spelling is.
        try:
            return ipaddress.IPv4Address(host)
        except ValueError:
            return _no_host()
    return None


def _no_host() -> None:
    raise Forbidden("this is not a host")


def judge(address: Address, target: Target, *, allow_private: bool) -> None:
    """Whether `target` may be reached at this address of it. Raises: Forbidden."""
    inner = _unwrapped(address)
    if inner in _METADATA:
        raise Forbidden("its address is one where a cloud keeps credentials")
    if _is_public(inner):
        if not target.is_secure:
            raise Forbidden("plain http is for loopback only")
        return
    if not allow_private:
        raise Forbidden("its address is not a public one")
    if inner.is_loopback:
        return
    if not _is_private(inner):
        raise Forbidden("its address is neither public, private nor loopback")
    if not target.is_secure:
        raise Forbidden("plain http is for loopback only")


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one carries, where a network would take it there. Raises: Forbidden."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if any(address in tunnel for tunnel in _TUNNELS) or (int(address) >> 32) & 0xFFFFFFFF in (0x5EFE, 0x2005EFE):
        raise Forbidden("its address is that of a tunnel")
    return address


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    return isinstance(address, ipaddress.IPv4Address) or address in _GLOBAL


def _is_private(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address in _SHARED or any(address in network for network in _PRIVATE)
    return address in _UNIQUE_LOCAL
