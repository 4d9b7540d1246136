"""Decide which URLs walletsvc may call: a user who registers a webhook must not reach internal hosts.

Only public addresses over https are allowed, unless WEBHOOK_TARGETS=any.
"""

import ipaddress
import re
import socket
from typing import Final
from urllib.parse import SplitResult, urlsplit

from django.conf import settings

MAX_URL_LENGTH: Final = 2000  # characters; the size of the column url

_NAME: Final = re.compile(r"[a-z0-9_.-]+")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
# Global unicast. An IPv6 address that embeds an IPv4 address is checked as the IPv4 address.
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class NotAllowed(ValueError):
    """A URL or address that walletsvc must not call."""


def check_url(url: str) -> None:
    """Raise NotAllowed, with the reason, if a webhook must not have this URL.

    `resolve` checks the host's addresses before each call: they may change.
    """
    if len(url) > MAX_URL_LENGTH:
        raise NotAllowed(f"must have at most {MAX_URL_LENGTH} characters")
    parts = _split(url)
    if parts.scheme not in _schemes():
        raise NotAllowed(f"must begin with {' or '.join(f'{scheme}://' for scheme in _schemes())}")
    if not parts.hostname:
        raise NotAllowed("has no host")
    if parts.username is not None or parts.password is not None:
        raise NotAllowed("must not contain a user name or password: requests are signed instead")
    if parts.fragment:
        raise NotAllowed("must not have a fragment")
    if parts.port == 0:
        raise NotAllowed("has an invalid port")
    _check_host(parts.hostname, is_bracketed="[" in parts.netloc)


def _check_host(host: str, is_bracketed: bool) -> None:
    try:
        address = ipaddress.ip_address(host).compressed
    except ValueError:
        if not _NAME.fullmatch(host) or is_bracketed:
            raise NotAllowed("has an invalid host name") from None
        # Parsers disagree about a host that ends in a number: some read an address, each a different one.
        if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
            raise NotAllowed(
                "must write an IPv4 address as four decimal numbers, and an IPv6 address in brackets"
            ) from None
        if settings.WEBHOOK_TARGETS != "any" and "." not in host.rstrip("."):
            raise NotAllowed(f"{host} is not a public name") from None
    else:
        _require_public(address)


def _split(url: str) -> SplitResult:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise NotAllowed("must contain only visible ASCII characters")
    try:
        parts = urlsplit(url)
        _ = parts.port, parts.hostname
    except ValueError as error:
        raise NotAllowed(f"is not a valid URL: {error}") from None
    return parts


def _schemes() -> tuple[str, ...]:
    return ("https", "http") if settings.WEBHOOK_TARGETS == "any" else ("https",)


def _require_public(address: str) -> None:
    if settings.WEBHOOK_TARGETS == "any":
        return
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = _embedded(ip) or ip
    is_unicast = ip.version == 4 or ip in _UNICAST  # noqa: PLR2004
    if not (ip.is_global and is_unicast) or ip.is_multicast:
        raise NotAllowed(f"{address} is not a public address")


def _embedded(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that is embedded in `ip`, or None."""
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of the host. Raises NotAllowed if any of them must not be called."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    for address in addresses:
        _require_public(address)
    return addresses
