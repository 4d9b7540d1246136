"""API keys and owners for tests."""

from typing import Any
from uuid import uuid4

from wallets.access import keys
from wallets.models import User


def new_key(*scopes: str, **fields: Any) -> str:
    """A key's text."""
    text = keys.new_text()
    keys.make(text, **{"name": "test", "scopes": scopes, **fields})
    return text


def new_owner(**fields: Any) -> User:
    return User.objects.create_user(username=f"owner-{uuid4()}", **fields)


def prefix_of(text: str) -> str:
    return text.split("_")[1]
