"""Reads environment variables with types and bounds.

django-environ is used for URLs only: it has no bounds, reads any unknown word as false and a leading $ as the
name of another variable, and its errors quote secrets and do not name the variable.
"""

import os
import re
from collections.abc import Callable
from math import inf
from typing import Any, Final, NamedTuple, TypeVar

import environ
from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")

DEFAULTS: dict[str, str | None] = {}  # by name; a test compares env.example with it
MIN_SECONDS: Final = 0.001  # less is 0 ms for PostgreSQL, which means no limit
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def read(
    name: str, default: str | None, parse: Callable[[str], T], wanted: str, *, is_secret: bool = False
) -> T:
    """Parse the variable. Empty counts as unset, as in a compose file; without a default it is required.

    Raises ImproperlyConfigured with one line: the variable, its value unless it is secret, and `wanted`.
    """
    DEFAULTS[name] = default
    raw = os.environ.get(name) or default
    if raw is None:
        raise ImproperlyConfigured(f"{name} is not set")
    try:
        return parse(raw)
    except (ValueError, ArithmeticError, LookupError, ImproperlyConfigured):
        value = "" if is_secret else f"={raw!r}"
        raise ImproperlyConfigured(f"{name}{value}: must be {wanted}") from None


def valid(value: T, is_valid: object) -> T:
    if not is_valid:
        raise ValueError
    return value


def text(name: str, default: str | None = "", form: str = ".*", wanted: str = "", **options: bool) -> str:
    """Return the text. The regular expression `form` must match all of it."""
    return read(name, default, lambda raw: valid(raw, re.fullmatch(form, raw, re.DOTALL)), wanted, **options)


def choice(name: str, default: str, options: tuple[str, ...]) -> str:
    return read(name, default, lambda raw: valid(raw, raw in options), f"one of {', '.join(options)}")


def flag(name: str, default: str) -> bool:
    return choice(name, default, ("on", "off")) == "on"


def number(name: str, default: int, minimum: int = 0) -> int:
    wanted = f"at least {minimum} and a whole number"
    return read(name, str(default), lambda raw: valid(value := int(raw), value >= minimum), wanted)


def seconds(name: str, default: str) -> float:
    return read(name, default, _seconds, f"at least {MIN_SECONDS}")


def timeout(name: str, default: str) -> float | None:
    return read(
        name, default, lambda raw: None if raw == "off" else _seconds(raw), f"at least {MIN_SECONDS}, or off"
    )


def _seconds(raw: str) -> float:
    return valid(value := float(raw), MIN_SECONDS <= value < inf)


def words(name: str) -> list[str]:
    """Return the comma-separated words without the spaces around them."""
    return read(name, "", lambda raw: [word.strip() for word in raw.split(",") if word.strip()], "words")


class Rate(NamedTuple):
    hits: int
    seconds: int


def rate(name: str, default: str) -> Rate | None:
    """Return the rate, such as `20/1m` for 20 in a minute, or None for `off`."""

    def parse(raw: str) -> Rate | None:
        found = re.fullmatch(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,3})([smhd])|off", raw)
        hits, units, unit = valid(found, found).groups()  # type: ignore[union-attr]
        return Rate(int(hits), int(units) * _UNITS[unit]) if hits else None

    return read(name, default, parse, "such as 20/1m (20 in a minute; s, m, h or d), or off")


def email(name: str) -> dict[str, Any] | None:
    """Return Django's EMAIL_ settings, or None if the variable is empty."""

    def parse(raw: str) -> dict[str, Any] | None:
        found = environ.Env.email_url_config(raw) if raw else {}
        return {key: value for key, value in found.items() if key.startswith("EMAIL_")} or None

    wanted = "smtp://, smtp+tls:// or smtp+ssl://user:password@host:port, or consolemail://"
    return read(name, "", parse, wanted, is_secret=True)


def database(name: str) -> dict[str, Any]:
    """Return an entry of Django's DATABASES."""

    def parse(raw: str) -> dict[str, Any]:
        valid(raw, raw.startswith(("postgres://", "postgresql://")))
        found = dict(environ.Env.db_url_config(raw))
        return valid(found, found["NAME"])

    wanted = "postgres://user:password@host:port/database, special characters as %XX"
    return read(name, None, parse, wanted, is_secret=True)
