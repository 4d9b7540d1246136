"""Which addresses may be called: whoever may enter one could have us call others.

Only public addresses, over https, unless WEBHOOK_TARGETS=any.
"""

import ipaddress
import re
import socket
from typing import Final
from urllib.parse import SplitResult, urlsplit

from django.conf import settings

MAX_URL_LENGTH: Final = 2000  # characters of an address, as the table has it

_NAME: Final = re.compile(r"[a-z0-9_.-]+")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
# IPv6 that is anybody's. What stands for an address of IPv4 is judged as that.
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class NotAllowed(ValueError):
    """An address that is not to be called."""


def check_url(url: str) -> None:
    """Raise NotAllowed, saying why, where the address cannot be that of a webhook.

    What its name resolves to is looked at when it is called: it may change.
    """
    if len(url) > MAX_URL_LENGTH:
        raise NotAllowed(f"must have at most {MAX_URL_LENGTH} characters")
    parts = _split(url)
    if parts.scheme not in _schemes():
        raise NotAllowed(f"must begin with {' or '.join(f'{scheme}://' for scheme in _schemes())}")
    if not parts.hostname:
        raise NotAllowed("names no host")
    if parts.username is not None or parts.password is not None:
        raise NotAllowed("must not hold a name or password: requests are signed instead")
    if parts.fragment:
        raise NotAllowed("must not have a fragment")
    if parts.port == 0:
        raise NotAllowed("names no port")
    _check_host(parts.hostname, is_bracketed="[" in parts.netloc)


def _check_host(host: str, is_bracketed: bool) -> None:
    try:
        address = ipaddress.ip_address(host).compressed
    except ValueError:
        if not _NAME.fullmatch(host) or is_bracketed:
            raise NotAllowed("names a host that cannot be") from None
        # Whatever ends in a number is read as an address by some, and as another one by others.
        if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
            raise NotAllowed("must write an address as four decimal numbers, or in brackets") from None
        if settings.WEBHOOK_TARGETS != "any" and "." not in host.rstrip("."):
            raise NotAllowed(f"{host} is not a public name") from None
    else:
        _require_public(address)


def _split(url: str) -> SplitResult:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise NotAllowed("must be written in visible ASCII characters")
    try:
        parts = urlsplit(url)
        _ = parts.port, parts.hostname
    except ValueError as error:
        raise NotAllowed(f"is no address: {error}") from None
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
    """The address of IPv4 that it stands for, if it stands for one."""
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour


def resolve(host: str, port: int) -> list[str]:
    """The addresses of the host. Raises NotAllowed where any of them is not to be called."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    for address in addresses:
        _require_public(address)
    return addresses
