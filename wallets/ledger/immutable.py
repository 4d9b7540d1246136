"""Dataclasses that the type checker treats as frozen."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def immutable(cls: type[T]) -> type[T]:
    """Make a dataclass that mypy treats as frozen.

    At run time it is not frozen: a frozen dataclass takes four times as long to create, and each operation
    creates five of them with fifty fields in all, most of them while its wallet is locked.
    """
    return dataclass(slots=True)(cls)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def immutable_keywords(cls: type[T]) -> type[T]:
    """Make a dataclass as `immutable` does, with keyword-only fields."""
    return dataclass(slots=True, kw_only=True)(cls)
