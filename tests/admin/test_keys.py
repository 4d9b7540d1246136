"""API keys in the admin: viewed, created and revoked with a permission, never edited."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from tests.admin.test_wallets_and_operations import logged_in, new_user, shown, text_of
from tests.support.client import Api
from tests.support.keys import new_key, new_owner, prefix_of
from wallets.access.rights import DEPOSIT, READ
from wallets.models import ApiKey

pytestmark = pytest.mark.usefixtures("quick_hashing")

KEYS = "/admin/wallets/apikey/"


@pytest.fixture
def client() -> Client:
    return logged_in(new_user("view_apikey", "change_apikey"))


def page(key: str, action: str = "change") -> str:
    return f"{KEYS}{prefix_of(key)}/{action}/"


def is_revoked(key: str) -> bool:
    return ApiKey.objects.get(prefix=prefix_of(key)).revoked_at is not None


def test_pages_show_the_scopes_and_no_secret(client: Client) -> None:
    owner = new_owner()
    key = new_key(READ, DEPOSIT, name="till 1", owner=owner, is_restricted=True)
    for html in (shown(client, KEYS, q="till 1"), shown(client, page(key))):
        for text in (prefix_of(key), "till 1", owner.username, "wallets:read, operations:deposit", "ACTIVE"):
            assert text in html
        assert key.split("_", 2)[2] not in html
        assert bytes(ApiKey.objects.get(prefix=prefix_of(key)).digest).hex() not in html


def test_keys_are_found_by_prefix_name_and_owner(client: Client) -> None:
    owner = new_owner()
    key, other = new_key(READ, name="shop", owner=owner), new_key(READ)
    for term in (prefix_of(key), owner.username):
        html = shown(client, KEYS, q=term)
        assert page(key) in html
        assert page(other) not in html


def test_expired_key_is_shown_as_expired(client: Client) -> None:
    assert "EXPIRED" in shown(client, page(new_key(READ, expires_at=timezone.now())))


def test_key_is_revoked_after_confirmation_and_logged(client: Client) -> None:
    key = new_key(READ)
    assert page(key, "revoke") in shown(client, page(key))
    assert "cannot be undone" in shown(client, page(key, "revoke"))
    assert not is_revoked(key)
    assert client.post(page(key, "revoke")).status_code == 302
    assert is_revoked(key)
    assert Api(key=key).get("/wallets").code == "unauthorized"
    log = LogEntry.objects.filter(object_id=prefix_of(key))
    assert list(log.values_list("change_message", flat=True)) == ["Revoked"]
    html = shown(client, page(key))
    assert "REVOKED" in html
    assert page(key, "revoke") not in html


def test_key_revoked_twice_is_logged_once(client: Client) -> None:
    key = new_key(READ)
    for _ in range(2):
        assert client.post(page(key, "revoke")).status_code == 302
    assert LogEntry.objects.filter(object_id=prefix_of(key)).count() == 1


def test_revoking_needs_the_permission() -> None:
    key = new_key(READ)
    viewer = logged_in(new_user("view_apikey"))
    assert page(key, "revoke") not in shown(viewer, page(key))
    for method in (viewer.get, viewer.post):
        assert method(page(key, "revoke")).status_code in (302, 403)
    assert not is_revoked(key)


def test_pages_need_the_view_permission() -> None:
    operator = logged_in(new_user("view_wallet"))
    assert operator.get(KEYS).status_code == 403
    assert operator.get(page(new_key(READ))).status_code == 403


def test_keys_cannot_be_added_edited_or_deleted_by_django_pages() -> None:
    root = logged_in(new_user(is_superuser=True))
    key = new_key(READ)
    before = ApiKey.objects.filter(prefix=prefix_of(key)).values().get()
    values = {"name": "mine", "scopes": "admin"}
    assert root.get(f"{KEYS}add/").status_code == 403
    for action in ("change", "delete"):
        assert root.post(page(key, action), values).status_code == 403
    assert ApiKey.objects.filter(prefix=prefix_of(key)).values().get() == before


def test_action_on_a_missing_key_redirects(client: Client) -> None:
    response = client.get(f"{KEYS}nosuchke/revoke/", follow=True)
    assert "doesn’t exist" in text_of(response)


# --- New keys ---------------------------------------------------------------------------------------
MAKE = f"{KEYS}make/"


def create(client: Client, **fields: Any) -> str | None:
    """Send the form and return the key that the page shows, or None."""
    sent = {"name": "shop", "scopes": [READ], **fields}
    response = client.post(MAKE, sent)
    assert response.status_code == 200
    found = re.search(r"wk_[a-z0-9]{8}_[A-Za-z0-9_-]{43}", text_of(response))
    return found[0] if found else None


@pytest.fixture
def creator() -> Client:
    """An operator who may create keys and view wallets."""
    return logged_in(new_user("view_apikey", "add_apikey", "view_wallet", "view_operation", "view_hold"))


def test_key_is_created_and_shown_once(creator: Client) -> None:
    assert MAKE in shown(creator, KEYS)
    owner = new_owner()
    fields = {"owner": owner.username.upper(), "is_restricted": "on", "expires_at": "2100-01-01T00:00"}
    key = create(creator, **fields)
    assert key is not None
    assert Api(key=key).get("/wallets").status == 200
    stored = ApiKey.objects.get(prefix=prefix_of(key))
    assert (stored.name, stored.owner, stored.is_restricted_to_owner) == ("shop", owner, True)
    assert stored.expires_at == datetime(2100, 1, 1, tzinfo=UTC)
    assert key not in shown(creator, KEYS) + shown(creator, page(key))
    assert "wallets:read" in LogEntry.objects.get(object_id=stored.prefix).change_message


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "x" * 201},
        {"name": "\x00"},
        {"scopes": []},
        {"scopes": ["everything"]},
        {"scopes": [DEPOSIT]},
        {"scopes": ["admin"]},
        {"owner": "no-such-user"},
        {"is_restricted": "on"},
        {"expires_at": "2000-01-01T00:00"},
        {"expires_at": "tomorrow"},
    ],
)
def test_invalid_form_or_excessive_scope_creates_no_key(creator: Client, fields: dict[str, Any]) -> None:
    before = ApiKey.objects.count()
    assert create(creator, **fields) is None
    assert ApiKey.objects.count() == before


def test_superuser_creates_a_key_with_any_scope() -> None:
    key = create(logged_in(new_user(is_superuser=True)), scopes=["admin"])
    assert Api(key=key).post("/wallets", {}).status == 201


def test_creating_a_key_needs_the_permission(client: Client) -> None:
    before = ApiKey.objects.count()
    assert MAKE not in shown(client, KEYS)
    assert client.post(MAKE, {"name": "shop", "scopes": [READ]}).status_code == 403
    assert ApiKey.objects.count() == before
