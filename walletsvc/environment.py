"""Typed reading of environment variables.

A missing or malformed value raises ImproperlyConfigured naming the variable, when the process starts.
READ remembers every name with its default, so that a test can hold env.example to it.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, TypeVar

import environ
from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")

REQUIRED: Final = object()
READ: dict[str, str | None] = {}
_env = environ.Env()


def _read(name: str, default: object, parse: Callable[[str], T], *, is_secret: bool = False) -> T:
    """The variable, parsed; an empty value counts as unset, as it does in a compose file.

    A secret's value stays out of the message, and so out of the logs.
    """
    READ[name] = None if default is REQUIRED else str(default)
    raw = _env.str(name, default="")
    if raw == "":
        if default is REQUIRED:
            raise ImproperlyConfigured(f"{name} is not set")
        raw = str(default)
    try:
        return parse(raw)
    except (ValueError, ArithmeticError) as error:
        raise ImproperlyConfigured(f"{name}{'' if is_secret else f'={raw!r}'}: {error}") from None


def text(name: str, default: object = REQUIRED) -> str:
    return _read(name, default, str)


def secret(name: str, minimum_length: int) -> str:
    def parse(raw: str) -> str:
        if len(raw) < minimum_length:
            raise ValueError(f"needs at least {minimum_length} characters")
        return raw

    return _read(name, REQUIRED, parse, is_secret=True)


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
    def parse(raw: str) -> float:
        value = float(raw)
        if not 0 < value < float("inf"):
            raise ValueError("must be more than 0")
        return value

    return _read(name, default, parse)


def decimal(name: str, default: str, maximum: Decimal) -> Decimal:
    def parse(raw: str) -> Decimal:
        value = Decimal(raw)
        if not 0 < value <= maximum:
            raise ValueError(f"must be more than 0 and at most {maximum:f}")
        return value

    return _read(name, default, parse)


def words(name: str, default: str = "") -> list[str]:
    """Comma-separated; spaces around a word do not count."""
    return _read(name, default, lambda raw: [word.strip() for word in raw.split(",") if word.strip()])


def database(name: str) -> dict[str, Any]:
    """A postgres:// URL as Django's DATABASES entry."""

    def parse(raw: str) -> dict[str, Any]:
        config = environ.Env.db_url_config(raw)
        if config.get("ENGINE") != "django.db.backends.postgresql" or not config.get("NAME"):
            raise ValueError("must be postgres://user:password@host:port/database")
        return dict(config)

    return _read(name, REQUIRED, parse, is_secret=True)
