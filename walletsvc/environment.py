"""Typed reading of environment variables.

A missing or malformed value raises ImproperlyConfigured naming the variable, when the process starts.
READ remembers every name with its default, so that a test can hold env.example to it.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")

REQUIRED: Final = object()
SHORTEST: Final = 0.001  # seconds: less is 0 ms to PostgreSQL, and that is no limit at all
READ: dict[str, str | None] = {}


def _read(name: str, default: object, parse: Callable[[str], T], *, is_secret: bool = False) -> T:
    """The variable, parsed; an empty value counts as unset, as it does in a compose file.

    A secret's value stays out of the message, and so out of the logs.
    """
    READ[name] = None if default is REQUIRED else str(default)
    raw = os.environ.get(name, "")  # environ.Env would take a leading $ for the name of another variable
    if raw == "":
        if default is REQUIRED:
            raise ImproperlyConfigured(f"{name} is not set")
        raw = str(default)
    try:
        return parse(raw)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}{'' if is_secret else f'={raw!r}'}: {error}") from None


def address(name: str, default: str) -> str:
    def parse(raw: str) -> str:
        port = raw.rpartition(":")[2]
        if not raw.startswith("unix:/") and not (port.isdecimal() and 0 < int(port) < 2**16):
            raise ValueError("must be host:port or unix:/path")
        return raw

    return _read(name, default, parse)


def text(name: str, default: str) -> str:
    return _read(name, default, str)


def secret(name: str, minimum_length: int, default: object = REQUIRED) -> str:
    def parse(raw: str) -> str:
        if raw and len(raw) < minimum_length:
            raise ValueError(f"needs at least {minimum_length} characters")
        return raw

    return _read(name, default, parse, is_secret=True)


def choice(name: str, default: str, options: tuple[str, ...]) -> str:
    def parse(raw: str) -> str:
        if raw not in options:
            raise ValueError(f"must be one of {', '.join(options)}")
        return raw

    return _read(name, default, parse)


def flag(name: str, default: str) -> bool:
    return choice(name, default, ("on", "off")) == "on"


def number(name: str, default: int, minimum: int = 0) -> int:
    def parse(raw: str) -> int:
        value = int(raw)
        if value < minimum:
            raise ValueError(f"must be at least {minimum}")
        return value

    return _read(name, default, parse)


def seconds(name: str, default: float) -> float:
    return _read(name, default, _seconds)


def timeout(name: str, default: str) -> float | None:
    """Seconds, or `off` for none."""
    return _read(name, default, lambda raw: None if raw == "off" else _seconds(raw))


def _seconds(raw: str) -> float:
    value = float(raw)
    if not SHORTEST <= value < float("inf"):
        raise ValueError(f"must be at least {SHORTEST}")
    return value


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in so many seconds."""

    hits: int
    seconds: int


def rate(name: str, default: str) -> Rate | None:
    """`20/1m` is 20 in a minute (s, m, h or d); `off` is no limit, None."""

    def parse(raw: str) -> Rate | None:
        if raw == "off":
            return None
        found = re.fullmatch(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,3})([smhd])", raw)
        if not found:
            raise ValueError("must be such as 20/1m (20 in a minute; s, m, h or d), or off")
        return Rate(int(found[1]), int(found[2]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[3]])

    return _read(name, default, parse)


def email(name: str) -> dict[str, Any] | None:
    """A server for outgoing mail as Django's EMAIL_ settings; None where there is none."""

    def parse(raw: str) -> dict[str, Any] | None:
        if not raw:
            return None
        try:
            config = environ.Env.email_url_config(raw) if "://" in raw else {}
        except (ValueError, KeyError, ImproperlyConfigured):  # it may quote the password
            config = {}
        if not config:
            raise ValueError(
                "must be smtp://, smtp+tls:// or smtp+ssl://user:password@host:port, or consolemail://"
            )
        return {name: value for name, value in config.items() if name.startswith("EMAIL_")}

    return _read(name, "", parse, is_secret=True)


def broker(name: str) -> str:
    """Where a message broker is; empty where there is none."""
    host = r"(\[[0-9A-Fa-f:.]+\]|[^][\s:/?#@,]+)(:[0-9]+)?"
    amqp = rf"amqps?://([^\s:/?#@]+:[^\s/?#@]*@)?{host}(/[^\s/?#]*)?"
    kafka = rf"kafka://{host}(,{host})*"

    def parse(raw: str) -> str:
        if raw and not re.fullmatch(rf"({amqp}|{kafka})(\?[^\s#]*)?", raw):
            raise ValueError(
                "must be amqp://user:password@host:port/vhost, amqps://… or kafka://host:port,host:port;"
                " what is no letter or digit in a name or password is percent-encoded"
            )
        return raw

    return _read(name, "", parse, is_secret=True)


def web_address(name: str, *, is_secret: bool = False) -> str:
    """http:// or https:// with a host; empty where there is none."""

    def parse(raw: str) -> str:
        if raw and not (raw.startswith(("http://", "https://")) and urlsplit(raw).hostname):
            raise ValueError("must be http://… or https://…")
        return raw

    return _read(name, "", parse, is_secret=is_secret)


def public_url(name: str, *, is_required: bool) -> str:
    """Where clients reach the service: http:// or https:// and a host. Links in mails begin with it."""
    host = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?"

    def parse(raw: str) -> str:
        if not raw and is_required:
            raise ValueError("must be set, because EMAIL_URL is: links in mails begin with it")
        if raw and not re.fullmatch(rf"https?://{host}", raw):
            raise ValueError("must be such as https://wallets.example.com, without a path")
        return raw

    return _read(name, "", parse)


def share(name: str, default: str) -> float:
    def parse(raw: str) -> float:
        value = float(raw)
        if not 0 <= value <= 1:
            raise ValueError("must be between 0 and 1")
        return value

    return _read(name, default, parse)


def decimal(name: str, default: str, maximum: Decimal) -> Decimal:
    def parse(raw: str) -> Decimal:
        try:
            value = Decimal(raw)
            fits = 0 < value <= maximum
        except InvalidOperation:
            fits = False
        if not fits:
            raise ValueError(f"must be more than 0 and at most {maximum:f}")
        return value

    return _read(name, default, parse)


def words(name: str, default: str = "") -> list[str]:
    """Comma-separated; spaces around a word do not count."""
    return _read(name, default, lambda raw: [word.strip() for word in raw.split(",") if word.strip()])


def database(name: str) -> dict[str, Any]:
    """A postgres:// URL as Django's DATABASES entry."""

    def parse(raw: str) -> dict[str, Any]:
        try:
            is_ours = raw.startswith(("postgres://", "postgresql://"))
            config = environ.Env.db_url_config(raw) if is_ours else {}
        except ValueError:  # it quotes what it cannot read: parts of the password
            config = {}
        if not config.get("NAME"):
            raise ValueError("must be postgres://user:password@host:port/database, special characters as %XX")
        return dict(config)

    return _read(name, REQUIRED, parse, is_secret=True)
