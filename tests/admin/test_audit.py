"""The audit trail, logins and wrong passwords in the admin: read with a permission, never changed."""

import re
from datetime import timedelta
from ipaddress import ip_address
from typing import Any
from uuid import uuid4

import pytest
from axes.models import AccessAttempt, AccessLog
from django.conf import LazySettings
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.admin.test_second_factor import LOGIN, may_enter, new_operator, send_login, with_password
from tests.admin.test_wallets_and_operations import (
    logged_in,
    new_user,
    new_wallet,
    page,
    plan_of,
    shown,
    text_of,
)
from wallets.models import User

pytestmark = pytest.mark.usefixtures("quick_hashing")

TRAIL = "/admin/admin/logentry/"
LOGINS = "/admin/axes/accesslog/"
WRONG = "/admin/axes/accessattempt/"


@pytest.fixture(autouse=True)
def _without_rate_limit(settings: LazySettings) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "login": None}


@pytest.fixture
def client() -> Client:
    return logged_in(new_user("view_logentry", "view_accesslog", "view_accessattempt"))


def ids_in(html: str, address: str) -> list[int]:
    return [int(found) for found in re.findall(rf'href="{address}(\d+)/change/', html)]


def freezer(name: str = "") -> tuple[User, Any]:
    """An operator who has frozen a wallet."""
    user = new_user("view_wallet", "change_wallet", username=name or f"user-{uuid4()}")
    wallet = new_wallet()
    logged_in(user).post(page(wallet, "freeze"), {"reason": "Ticket 4711"})
    return user, wallet


def row_page(address: str, id: int, action: str = "change") -> str:
    return f"{address}{id}/{action}/"


# --- The audit trail --------------------------------------------------------------------------------
def test_audit_trail_lists_actions_of_all_operators_newest_first(client: Client) -> None:
    user, wallet = freezer()
    logged_in(user).post(page(wallet, "thaw"), {"reason": "Ticket 4712"})
    html = shown(client, TRAIL, q=user.username)
    thawed, frozen = LogEntry.objects.filter(user=user).order_by("-id").values_list("id", flat=True)
    assert ids_in(html, TRAIL) == [thawed, frozen]
    for text in (user.username, "Status FROZEN: Ticket 4711", "Status ACTIVE: Ticket 4712", page(wallet)):
        assert text in html
    html = shown(client, row_page(TRAIL, frozen))
    assert "Status FROZEN: Ticket 4711" in html
    assert page(wallet) in html


def test_audit_trail_is_searched_by_operator_name_prefix(client: Client) -> None:
    mark = uuid4().hex
    user, other = freezer(f"Dora.{mark}")[0], freezer(f"carl.{mark}")[0]
    for term in (f"dora.{mark}", f" Dora.{mark[:20]}"):
        html = shown(client, TRAIL, q=term)
        assert user.username in html
        assert other.username not in html
    assert ids_in(shown(client, TRAIL, q=f"unknown.{mark}"), TRAIL) == []


def test_audit_trail_is_filtered_by_time_and_kind(client: Client) -> None:
    user, _ = freezer()
    entry = LogEntry.objects.get(user=user)

    def found(**query: str) -> list[int]:
        return ids_in(shown(client, TRAIL, q=user.username, **query), TRAIL)

    at = f"{entry.action_time:%FT%T.%f}"
    assert found(action_time_from=at) == [entry.id]
    assert found(action_time_to=at) == []
    assert found(action_flag__exact="2") == [entry.id]
    assert found(action_flag__exact="3") == []


def test_deleted_object_is_named_without_a_link(client: Client) -> None:
    root = new_user(is_superuser=True)
    name = f"group-{uuid4()}"
    LogEntry.objects.create(
        user=root, content_type=None, object_id="1", object_repr=name, action_flag=3, change_message=""
    )
    html = shown(client, TRAIL, q=root.username)
    assert name in html
    assert "Deletion" in html
    assert "/admin/auth/group/" not in html.split(name)[0][-300:]


def test_untrusted_text_is_escaped(client: Client) -> None:
    evil = f"<script>alert('{uuid4().hex}')</script>"
    user = new_user()
    LogEntry.objects.create(
        user=user, object_id=evil, object_repr=evil, action_flag=2, change_message=evil, content_type_id=1
    )
    attempt = new_attempt(evil.lower(), user_agent=evil, path_info=evil)
    AccessLog.objects.create(username=user.username, ip_address=None, user_agent=evil, path_info=evil)
    for address, query in (
        (TRAIL, {"q": user.username}),
        (row_page(TRAIL, LogEntry.objects.get(user=user).id), {}),
        (LOGINS, {"q": user.username}),
        (WRONG, {"q": "<script"}),
        (row_page(WRONG, attempt.id), {}),
    ):
        html = shown(client, address, **query)
        assert evil not in html
        assert "&lt;script&gt;alert(" in html


# --- Logins -----------------------------------------------------------------------------------------
def test_logins_show_account_address_and_logout_time(client: Client) -> None:
    user = new_operator()
    visitor = with_password(user, REMOTE_ADDR="203.0.113.9", HTTP_USER_AGENT="Lynx/2.8")
    html = shown(client, LOGINS, q=user.username)
    (login,) = AccessLog.objects.filter(username=user.username)
    assert ids_in(html, LOGINS) == [login.id]
    assert "203.0.113.9" in html
    assert login.logout_time is None
    visitor.post("/admin/logout/")
    login.refresh_from_db()
    assert f"{login.logout_time:%Y-%m-%d %H:%M:%S}" in shown(client, LOGINS, q=user.username)
    assert "Lynx/2.8" in shown(client, row_page(LOGINS, login.id))


def test_logins_are_found_by_name_address_and_time(client: Client) -> None:
    user, address = new_operator(), str(ip_address(f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}::"))
    with_password(
        user, REMOTE_ADDR=f"{address}1"
    )  # of an IPv6 address, only the network of the customer is stored
    (login,) = AccessLog.objects.filter(username=user.username)
    for term in (user.username.upper(), user.username[:30], address):
        assert ids_in(shown(client, LOGINS, q=term), LOGINS) == [login.id]
    assert ids_in(shown(client, LOGINS, q=f"unknown-{uuid4()}"), LOGINS) == []
    at = f"{login.attempt_time:%FT%T.%f}"
    assert ids_in(shown(client, LOGINS, q=address, attempt_time_from=at), LOGINS) == [login.id]
    assert ids_in(shown(client, LOGINS, q=address, attempt_time_to=at), LOGINS) == []


# --- Wrong passwords and lockouts -------------------------------------------------------------------
ADDRESS = "198.51.100.20"


def new_attempt(username: str, **fields: Any) -> AccessAttempt:
    return AccessAttempt.objects.create(
        **{
            "username": username,
            "ip_address": ADDRESS,
            "user_agent": "test",
            "failures_since_start": 5,
            **fields,
        }
    )


def locked_out() -> tuple[User, Client]:
    user, client = new_operator(), Client(REMOTE_ADDR=ADDRESS)
    for _ in range(5):
        send_login(client, user, "wrong")
    assert send_login(client, user).status_code == 429
    return user, client


def test_wrong_passwords_show_account_address_and_count(client: Client) -> None:
    user, _ = locked_out()
    html = shown(client, WRONG, q=user.username)
    (attempt,) = AccessAttempt.objects.filter(username=user.username)
    assert ids_in(html, WRONG) == [attempt.id]
    assert ADDRESS in html
    assert re.search(r">\s*5\s*<", html)
    assert ids_in(shown(client, WRONG, q=ADDRESS), WRONG)[0] == attempt.id
    assert "username=" in attempt.post_data
    assert "username=" not in shown(client, row_page(WRONG, attempt.id))


@pytest.mark.slow
def test_lockout_is_lifted_after_confirmation_and_logged() -> None:
    user, locked = locked_out()
    send_login(Client(REMOTE_ADDR=ADDRESS, HTTP_USER_AGENT="another"), user, "wrong")
    other_attempt = new_attempt(user.username, ip_address="198.51.100.21")
    operator = logged_in(new_user("view_accessattempt", "delete_accessattempt"))
    attempt = AccessAttempt.objects.filter(username=user.username, ip_address=ADDRESS)[0]
    address = row_page(WRONG, attempt.id, "lift")
    assert address in shown(operator, row_page(WRONG, attempt.id))
    assert f"{user.username} from {ADDRESS}" in shown(operator, address)
    assert send_login(locked, user).status_code == 429
    assert operator.post(address)["Location"] == WRONG
    assert list(AccessAttempt.objects.filter(username=user.username)) == [other_attempt]
    assert send_login(locked, user).status_code == 302
    assert may_enter(locked)
    entry = LogEntry.objects.get(object_id=str(user.pk))
    assert entry.change_message == f"Lifted the lockout of {user.username} from {ADDRESS}"


def test_lockout_of_an_unknown_account_is_lifted_too() -> None:
    """Lifting it lifts no other lockout, even if neither account nor address is known."""
    other = new_attempt(f"other-{uuid4()}")
    operator = logged_in(new_user("view_accessattempt", "delete_accessattempt"))
    for fields in ({"username": f"unknown-{uuid4()}"}, {"username": None, "ip_address": None}):
        attempt = new_attempt(**fields)
        assert operator.post(row_page(WRONG, attempt.id, "lift")).status_code == 302
        assert not AccessAttempt.objects.filter(id=attempt.id).exists()
    assert AccessAttempt.objects.filter(id=other.id).exists()
    assert "doesn’t exist" in text_of(operator.get(row_page(WRONG, attempt.id, "lift"), follow=True))


@pytest.mark.parametrize("permissions", [("view_accessattempt",), ("delete_accessattempt",), ()])
def test_lifting_a_lockout_needs_the_permission(permissions: tuple[str, ...]) -> None:
    attempt = new_attempt(f"user-{uuid4()}")
    client = logged_in(new_user(*permissions))
    address = row_page(WRONG, attempt.id, "lift")
    for send in (client.get, client.post):
        assert send(address).status_code == 403
    assert AccessAttempt.objects.filter(id=attempt.id).exists()


# --- All lists --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("address", "permission"),
    [(TRAIL, "view_logentry"), (LOGINS, "view_accesslog"), (WRONG, "view_accessattempt")],
)
def test_list_needs_the_view_permission(address: str, permission: str) -> None:
    assert logged_in(new_user(permission)).get(address).status_code == 200
    others = {"view_logentry", "view_accesslog", "view_accessattempt", "view_wallet"} - {permission}
    assert logged_in(new_user(*others)).get(address).status_code == 403


@pytest.mark.parametrize("address", [TRAIL, LOGINS, WRONG])
def test_audit_rows_cannot_be_added_edited_or_deleted(address: str) -> None:
    root = logged_in(new_user(is_superuser=True))
    user, _ = freezer()
    entry = LogEntry.objects.get(user=user)
    login = AccessLog.objects.create(username=user.username)
    attempt = new_attempt(user.username)
    row: Any = {TRAIL: entry, LOGINS: login, WRONG: attempt}[address]
    before = type(row).objects.filter(pk=row.pk).values().get()
    values = {"username": "x", "change_message": "x", "post": "yes"}
    for action in ("change", "delete"):
        assert root.post(row_page(address, row.pk, action), values).status_code == 403
    assert root.get(f"{address}add/").status_code == 403
    root.post(address, {"action": "delete_selected", "_selected_action": str(row.pk), "post": "yes"})
    assert type(row).objects.filter(pk=row.pk).values().get() == before


@pytest.mark.parametrize("address", [TRAIL, LOGINS, WRONG])
@pytest.mark.parametrize(
    "query", [{"q": "\x00"}, {"q": "x" * 10_000}, {"q": "%"}, {"action_flag__exact": "x"}]
)
def test_invalid_query_of_a_list_is_no_error(client: Client, address: str, query: dict[str, str]) -> None:
    assert client.get(address, query, follow=True).status_code == 200


@pytest.mark.parametrize(
    ("address", "table", "index"),
    [
        (TRAIL, "django_admin_log", "django_admin_log_newest_idx"),
        (LOGINS, "axes_accesslog", "axes_accesslog_newest_idx"),
        (WRONG, "axes_accessattempt", "axes_accessattempt_newest_idx"),
    ],
)
def test_list_reads_one_page_in_index_order(client: Client, address: str, table: str, index: str) -> None:
    with CaptureQueriesContext(connection) as captured:
        shown(client, address)
    queries = [query["sql"] for query in captured.captured_queries]
    (read,) = (sql for sql in queries if f'FROM "{table}"' in sql)
    assert "LIMIT 51" in read
    assert index in plan_of(read, "seqscan", "bitmapscan", "hashjoin", "mergejoin")


@pytest.mark.parametrize(
    ("address", "index"),
    [(TRAIL, "django_admin_log_user_idx"), (LOGINS, "axes_accesslog_username_idx")],
)
def test_search_for_a_rare_name_uses_an_index(client: Client, address: str, index: str) -> None:
    user, _ = freezer()
    with CaptureQueriesContext(connection) as captured:
        shown(client, address, q=user.username)
    read = next(query["sql"] for query in captured.captured_queries if "LIMIT 51" in query["sql"])
    assert index in plan_of(read, "seqscan", "hashjoin", "mergejoin", "sort", "indexscan", "nestloop")


def test_audit_pages_have_readable_names(client: Client) -> None:
    html = shown(client, "/admin/")
    for name in ("Audit trail", "Logins", "Wrong passwords"):
        assert name in html
    assert "axes" not in re.sub("<[^>]*>", "", html).lower()


def test_old_wrong_passwords_do_not_lock_an_account() -> None:
    user = new_operator()
    attempt = new_attempt(user.username)
    client = Client(REMOTE_ADDR=ADDRESS)
    assert send_login(client, user).status_code == 429
    AccessAttempt.objects.filter(id=attempt.id).update(attempt_time=timezone.now() - timedelta(minutes=16))
    assert send_login(client, user, at=LOGIN).status_code == 302
