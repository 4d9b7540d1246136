"""Every request by every kind of principal, from one table; and the limits of restricted keys."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.conf import LazySettings

from tests.conftest import Books, Unchanged
from tests.support.client import Answer, Api
from tests.support.cluster import cluster
from tests.support.keys import PASSWORD, new_key, new_operator, new_owner, new_person, prefix_of, session_of
from wallets.access import rights
from wallets.access.rights import (
    ADMIN,
    DEPOSIT,
    HOLD,
    LIMITS,
    NO_SCOPE,
    OPERATOR_SCOPES,
    PERSON,
    READ,
    SCOPES,
    TRANSFER,
    WITHDRAW,
    WRITE,
)
from wallets.api import urls
from wallets.events import webhook_registry
from wallets.events.delivery_state import from_now_on
from wallets.events.webhooks import new_secret
from wallets.ledger.inbox import drain
from wallets.models import InboxEntry, Operation, Subscriber, User, Wallet, WalletChange

pytestmark = pytest.mark.usefixtures("quick_hashing")


@pytest.fixture(autouse=True)
def _require_credentials(settings: LazySettings) -> None:
    settings.API_ACCESS = "key"


@dataclass(frozen=True)
class World:
    """The objects of one owner, and a wallet of another. Both have a restricted key with all scopes."""

    user: User  # the owner
    owner: Api
    stranger: Api
    bank: Api
    ids: dict[str, str]

    @property
    def wallets(self) -> tuple[str, str]:
        return self.ids["wallet"], self.ids["other"]


def restricted_key(owner: User | None = None) -> str:
    return new_key(ADMIN, owner=owner or new_owner(), is_restricted=True)


@pytest.fixture
def world() -> World:
    return new_world()


@pytest.fixture(scope="module")
def shared_world() -> World:
    """The objects for refused requests, which change nothing."""
    return new_world()


@pytest.fixture(scope="module", autouse=True)
def _remove_webhooks() -> Iterator[None]:
    yield
    webhook_registry.webhooks().delete()


def new_world() -> World:
    user = new_person()
    keys = (restricted_key(user), restricted_key(), new_key(ADMIN))
    owner, stranger, bank = (Api(key=key) for key in keys)
    wallet, other = owner.open(currency="EUR"), stranger.open(currency="EUR")
    ids = {
        "wallet": wallet,
        "other": other,
        "operation": bank.deposit(wallet, "100").json["id"],
        "transfer": owner.transfer(wallet, other, "10", key="rent").json["id"],
        "hold": owner.hold(wallet, "5").json["id"],
        "webhook": new_webhook(),
        "name": f"webhook-{uuid4()}",
        "person": user.email,
        "newcomer": f"newcomer-{uuid4()}@example.com",
    }
    return World(user, owner, stranger, bank, ids)


def new_webhook() -> str:
    """Replace all webhooks by one: their number is limited."""
    webhook_registry.webhooks().delete()
    url = "https://127.0.0.1:1/"
    webhook = Subscriber.objects.create(
        id=uuid4(), kind="WEBHOOK", name="shop", url=url, secret=new_secret(), **from_now_on()
    )
    return str(webhook.id)


# --- Every request by every principal ---------------------------------------------------------------
NOT_FOUND = {
    "wallet": (404, "wallet_not_found"),
    "operation": (404, "operation_not_found"),
    "transfer": (404, "transfer_not_found"),
    "hold": (404, "hold_not_found"),
}


@dataclass(frozen=True)
class Row:
    """A valid request, with the scope that it needs."""

    path: str  # its objects belong to the owner
    scope: str | None  # None: no scope needed
    success_status: int
    body: dict[str, Any] | None = None
    foreign: tuple[int, str | None] | None = None  # the response to another owner; None: 404
    is_looked_up_first: bool = False  # the object decides which scope is needed

    def send(self, method: str, api: Api, ids: dict[str, str]) -> Answer:
        return api.send(method, self.path.format(**ids), _filled(self.body, ids))

    @property
    def refused(self) -> tuple[int, str | None]:
        return self.foreign or NOT_FOUND[re.findall(r"{(\w+)}", self.path + str(self.body))[0]]


def _filled(body: Any, ids: dict[str, str]) -> Any:
    match body:
        case dict():
            return {name: _filled(value, ids) for name, value in body.items()}
        case list():
            return [_filled(value, ids) for value in body]
        case str():
            return body.format(**ids)
    return body


DEPOSIT_1 = {"operationType": "DEPOSIT", "amount": "1"}
TRANSFER_1 = {"sourceWalletId": "{wallet}", "targetWalletId": "{other}", "amount": "1"}
BULK = {"operations": [{"walletId": "{wallet}", **DEPOSIT_1}], "atomic": True}
ROWS = {
    "POST /wallets": Row("/wallets", WRITE, 201, {}, (201, None)),
    "POST /wallet/create": Row("/wallet/create", WRITE, 201, {}, (201, None)),
    "GET /wallets": Row("/wallets", READ, 200, None, (200, None)),
    "GET /wallets/{id}": Row("/wallets/{wallet}", READ, 200),
    "PATCH /wallets/{id}": Row("/wallets/{wallet}", WRITE, 200, {"label": "mine"}),
    "POST /wallets/{id}/operation": Row("/wallets/{wallet}/operation", DEPOSIT, 201, DEPOSIT_1),
    "POST /wallet": Row("/wallet", DEPOSIT, 201, {"walletId": "{wallet}", **DEPOSIT_1}),
    "POST /operations": Row("/operations", DEPOSIT, 200, BULK, (409, "wallet_not_found")),
    "GET /operations": Row("/operations?walletId={wallet}", READ, 200),
    "GET /operations/{id}": Row("/operations/{operation}", READ, 200),
    "POST /operations/{id}/reversal": Row(
        "/operations/{operation}/reversal", WITHDRAW, 201, {"amount": "1"}, is_looked_up_first=True
    ),
    "GET /wallets/{id}/operations": Row("/wallets/{wallet}/operations", READ, 200),
    "GET /wallets/{id}/balance": Row("/wallets/{wallet}/balance", READ, 200),
    "GET /wallets/{id}/statement": Row("/wallets/{wallet}/statement", READ, 200),
    "GET /wallets/{id}/events": Row("/wallets/{wallet}/events?seconds=0", READ, 200),
    "POST /transfers": Row("/transfers", TRANSFER, 201, TRANSFER_1),
    # Both owners may see a transfer, so "foreign" is a third user.
    "GET /transfers/{id}": Row("/transfers/{transfer}", READ, 200),
    "POST /wallets/{id}/holds": Row("/wallets/{wallet}/holds", HOLD, 201, {"amount": "1"}),
    "GET /wallets/{id}/holds": Row("/wallets/{wallet}/holds", READ, 200),
    "GET /holds/{id}": Row("/holds/{hold}", READ, 200),
    "POST /holds/{id}/capture": Row("/holds/{hold}/capture", HOLD, 201, {"amount": "1"}),
    "POST /holds/{id}/void": Row("/holds/{hold}/void", HOLD, 200, {}),
    "POST /webhooks": Row("/webhooks", ADMIN, 201, {"name": "{name}", "url": "https://example.com/events"}),
    "GET /webhooks": Row("/webhooks", ADMIN, 200),
    "GET /webhooks/{id}": Row("/webhooks/{webhook}", ADMIN, 200),
    "PATCH /webhooks/{id}": Row("/webhooks/{webhook}", ADMIN, 200, {"batch": 10}),
    "DELETE /webhooks/{id}": Row("/webhooks/{webhook}", ADMIN, 204),
    "POST /webhooks/{id}/rotation": Row("/webhooks/{webhook}/rotation", ADMIN, 200),
    "POST /webhooks/{id}/test": Row("/webhooks/{webhook}/test", ADMIN, 200),
    "GET /webhooks/{id}/deliveries": Row("/webhooks/{webhook}/deliveries", ADMIN, 200),
    "GET /webhooks/{id}/dead-letters": Row("/webhooks/{webhook}/dead-letters", ADMIN, 200),
    "DELETE /webhooks/{id}/dead-letters": Row("/webhooks/{webhook}/dead-letters", ADMIN, 204),
    "POST /webhooks/{id}/replay": Row("/webhooks/{webhook}/replay", ADMIN, 200),
    "POST /signup": Row(
        "/signup", None, 201, {"name": "Anna", "email": "{newcomer}", "password": PASSWORD}, (201, None)
    ),
    "POST /login": Row("/login", None, 200, {"email": "{person}", "password": PASSWORD}, (200, None)),
    "POST /logout": Row("/logout", PERSON, 204, {}, (204, None)),
    "GET /me": Row("/me", PERSON, 200, None, (200, None)),
    "GET /me/wallet": Row("/me/wallet", PERSON, 200, None, (404, "wallet_not_found")),
}
Expected = tuple[int, str | None]
UNKNOWN: Expected = (401, "unauthorized")
FORBIDDEN: Expected = (403, "forbidden")
PROGRAMS = frozenset(SCOPES)
# A webhook receives the events of all wallets, so a restricted key has no admin scope.
RESTRICTED = PROGRAMS - {ADMIN}
OPERATORS = RESTRICTED | {PERSON}
PEOPLE = frozenset((PERSON, READ, TRANSFER))


def expected(
    row: Row, scopes: frozenset[str], *, is_foreign: bool = False, refused: Expected = FORBIDDEN
) -> Expected:
    """Return the status and problem code for a principal with these scopes."""
    if is_foreign and row.is_looked_up_first:
        return row.refused
    if row.scope is not None and row.scope not in scopes:
        return refused
    return row.refused if is_foreign else (row.success_status, None)


def of_operator(row: Row, scopes: frozenset[str]) -> Expected:
    """Expect no own wallet: an operator has none."""
    return expected(row, scopes, is_foreign=row.path == "/me/wallet")


def key(*scopes: str) -> Api:
    return Api(key=new_key(*scopes))


def own_scope(row: Row) -> str:
    """Return the scope of the row, or another if no key can have it."""
    return row.scope if row.scope in SCOPES else READ


def others(row: Row) -> list[str]:
    return [scope for scope in SCOPES if scope not in (row.scope, ADMIN)]


DEACTIVATED = "a user with a deactivated account"
ALL_PERMISSIONS = [name for names in OPERATOR_SCOPES for name in names]
VIEW_PERMISSIONS = next(iter(OPERATOR_SCOPES))
# For each kind of principal: its client, and the response that it expects.
PRINCIPALS: dict[str, tuple[Callable[[Row, World], Api], Callable[[Row], Expected]]] = {
    "no credentials": (lambda row, world: Api(), lambda row: expected(row, frozenset(), refused=UNKNOWN)),
    "an unknown key": (
        lambda row, world: Api(key=f"wk_abcd1234_{'x' * 43}"),
        lambda row: expected(row, frozenset(), refused=UNKNOWN),
    ),
    "a key with the read scope": (
        lambda row, world: key(READ),
        lambda row: expected(row, frozenset((READ,))),
    ),
    "a key with just the scope": (
        lambda row, world: key(own_scope(row)),
        lambda row: expected(row, frozenset((own_scope(row),))),
    ),
    "a key with all other scopes": (
        lambda row, world: key(*others(row)),
        lambda row: expected(row, frozenset(others(row))),
    ),
    "the owner's restricted key": (lambda row, world: world.owner, lambda row: expected(row, RESTRICTED)),
    "another owner's restricted key": (
        lambda row, world: Api(key=restricted_key()),
        lambda row: expected(row, RESTRICTED, is_foreign=True),
    ),
    "an admin key": (lambda row, world: world.bank, lambda row: expected(row, PROGRAMS)),
    "the owner, logged in": (
        lambda row, world: session_of(world.user),
        lambda row: expected(row, PEOPLE),
    ),
    "another user": (
        lambda row, world: session_of(new_person()),
        lambda row: expected(row, PEOPLE, is_foreign=True),
    ),
    "an operator with no permission": (
        lambda row, world: session_of(new_operator()),
        lambda row: of_operator(row, frozenset((PERSON,))),
    ),
    "an operator with view permissions": (
        lambda row, world: session_of(new_operator(*VIEW_PERMISSIONS)),
        lambda row: of_operator(row, frozenset((PERSON, READ))),
    ),
    "an operator with all permissions": (
        lambda row, world: session_of(new_operator(*ALL_PERMISSIONS)),
        lambda row: of_operator(row, OPERATORS),
    ),
    "a superuser": (
        lambda row, world: session_of(new_operator(is_superuser=True)),
        lambda row: of_operator(row, OPERATORS),
    ),
    DEACTIVATED: (
        lambda row, world: session_of(deactivated(world.user)),
        lambda row: (
            (401, "invalid_credentials")
            if row.path == "/login"
            else expected(row, frozenset(), refused=UNKNOWN)
        ),
    ),
}


def deactivated(user: User) -> User:
    User.objects.filter(pk=user.pk).update(is_active=False)
    return user


def test_every_request_has_a_row_and_a_scope() -> None:
    served = {
        f"{method.upper()} /{re.sub('<.*?>', '{id}', str(route.pattern))}": view.__name__
        for route in urls.urlpatterns
        for view in [getattr(route.callback, "view_class")]  # noqa: B009
        for method in view.http_method_names
        if method != "head" and hasattr(view, method)
    }
    assert set(ROWS) == set(served)
    assert {(view, line.split()[0]) for line, view in served.items()} == {
        (view, method) for view, methods in rights.NEEDED.items() for method in methods
    }
    assert {line for line, row in ROWS.items() if row.scope is None} == {
        line for line, view in served.items() if rights.NEEDED[view][line.split()[0]] is NO_SCOPE
    }


@pytest.fixture(scope="module")
def clients(shared_world: World) -> Callable[[str, Row], Api]:
    """Clients of the shared world, cached: they depend only on the principal and the row's scope."""
    made: dict[tuple[str, str | None], Api] = {}

    def client_of(principal: str, row: Row) -> Api:
        name = (principal, row.scope)
        if name not in made:
            made[name] = PRINCIPALS[principal][0](row, shared_world)
        return made[name]

    return client_of


@pytest.mark.parametrize("principal", PRINCIPALS)
@pytest.mark.parametrize("line", ROWS)
def test_response_follows_the_permissions_of_the_principal(
    shared_world: World, clients: Callable[[str, Row], Api], unchanged: Unchanged, line: str, principal: str
) -> None:
    """Permitted writes, webhooks and deactivated accounts use a new world; all others share one."""
    row, method = ROWS[line], line.split(maxsplit=1)[0]
    client_for, expected_response = PRINCIPALS[principal]
    status, code = expected_response(row)
    if (code is None and (method != "GET" or "webhook" in row.path)) or principal == DEACTIVATED:
        world = new_world()
        client = client_for(row, world)
    else:
        world, client = shared_world, clients(principal, row)
    if code is None and method != "GET":
        assert row.send(method, client, world.ids).status == status
        Books(world.wallets).verify()
        return
    with unchanged(*world.wallets):
        answer = row.send(method, client, world.ids)
    assert answer.status == status
    assert code is None or answer.code == code


def test_view_without_a_row_in_the_table_is_forbidden(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(rights.NEEDED, "WalletById")
    assert world.bank.get(f"/wallets/{world.ids['wallet']}").code == "forbidden"


def test_head_needs_the_scope_of_get(world: World) -> None:
    path = f"/wallets/{world.ids['wallet']}"
    assert [Api(key=new_key(scope)).send("HEAD", path).status for scope in (READ, WRITE)] == [200, 403]


def test_unknown_method_is_405_with_any_scopes(world: World) -> None:
    assert Api(key=new_key(READ)).send("PUT", "/wallets").code == "method_not_allowed"


# --- Scopes of operation types ----------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "scope"), [("DEPOSIT", DEPOSIT), ("WITHDRAW", WITHDRAW)])
def test_deposits_and_withdrawals_need_their_own_scopes(
    world: World, unchanged: Unchanged, kind: str, scope: str
) -> None:
    other = ({DEPOSIT, WITHDRAW} - {scope}).pop()
    with unchanged(world.ids["wallet"]):
        assert Api(key=new_key(other)).operate(world.ids["wallet"], kind, "1").code == "forbidden"
    assert Api(key=new_key(scope)).operate(world.ids["wallet"], kind, "1").status == 201


def test_bulk_needs_the_scope_of_each_item(world: World, unchanged: Unchanged) -> None:
    wallet, other = world.wallets
    deposit = {"walletId": wallet, "operationType": "DEPOSIT", "amount": "1"}
    transfer = {"sourceWalletId": wallet, "targetWalletId": other, "amount": "1"}
    for atomic in (False, True):
        with unchanged(wallet, other):
            answer = Api(key=new_key(DEPOSIT)).bulk(deposit, transfer, atomic=atomic)
        assert (answer.status, answer.code) == (403, "forbidden")
        assert Api(key=new_key(DEPOSIT, TRANSFER)).bulk(deposit, transfer, atomic=atomic).status == 200


@pytest.mark.parametrize(
    ("make", "scope"),
    [
        (lambda api, wallet, other: api.deposit(wallet, "1"), WITHDRAW),
        (lambda api, wallet, other: api.withdraw(wallet, "1"), DEPOSIT),
        (lambda api, wallet, other: api.capture(api.hold(wallet, "1").json["id"]), DEPOSIT),
        (lambda api, wallet, other: api.transfer(wallet, other, "1"), TRANSFER),
    ],
    ids=["deposit", "withdrawal", "capture", "transfer"],
)
def test_reversal_needs_the_scope_of_its_movement(
    world: World, unchanged: Unchanged, make: Callable[..., Answer], scope: str
) -> None:
    operation_id = make(world.bank, *world.wallets).json["id"]
    others = [other for other in (DEPOSIT, WITHDRAW, TRANSFER) if other != scope]
    with unchanged(*world.wallets):
        assert Api(key=new_key(*others)).reverse(operation_id).code == "forbidden"
    assert Api(key=new_key(scope)).reverse(operation_id).status == 201


def test_ledger_records_the_key_as_actor(world: World) -> None:
    wallet = world.ids["wallet"]
    key = world.owner.key or ""
    world.owner.patch(f"/wallets/{wallet}", {"label": "mine"})
    world.owner.bulk({"walletId": wallet, "operationType": "DEPOSIT", "amount": "3"})
    actor = f"key:{prefix_of(key)}"
    assert WalletChange.objects.get(wallet_id=wallet, type="CHANGED").actor == actor
    assert Operation.objects.get(wallet_id=wallet, amount=3).actor == actor
    assert Operation.objects.get(id=world.ids["hold"]).actor == actor


# --- Restricted keys: opening and listing wallets ---------------------------------------------------
def test_restricted_key_opens_wallets_of_its_owner(world: World) -> None:
    user = new_owner()
    api = Api(key=new_key(WRITE, READ, owner=user, is_restricted=True))
    wallet = api.open()
    assert Wallet.objects.get(id=wallet).owner_id == user.id
    assert Wallet.objects.get(id=world.bank.open()).owner_id is None
    # Another key of the same owner sees it too; an unrestricted key opens wallets without an owner.
    assert Api(key=new_key(READ, owner=user, is_restricted=True)).get(f"/wallets/{wallet}").status == 200
    assert Wallet.objects.get(id=Api(key=new_key(WRITE, owner=user)).open()).owner_id is None


def test_restricted_key_lists_only_its_owners_wallets(world: World) -> None:
    mine = [world.ids["wallet"], *(world.owner.open() for _ in range(2))]
    found, cursor = [], ""
    while cursor is not None:
        page = world.owner.get(f"/wallets?limit=2{f'&cursor={cursor}' if cursor else ''}").json
        found += [item["id"] for item in page["items"]]
        cursor = page["nextCursor"]
    assert found == mine[::-1]


def test_id_of_a_foreign_wallet_reveals_nothing(world: World) -> None:
    chosen = {"id": str(uuid4()), "label": "secret"}
    assert world.owner.post("/wallets", chosen).status == 201
    again = world.stranger.post("/wallets", chosen)
    assert again.code == "idempotency_key_reused"
    assert "secret" not in again.content.decode()
    assert world.owner.post("/wallets", chosen).headers["idempotent-replayed"] == "true"


OVERDRAFT = {"overdraftLimit": "1.00", "label": "overdraft"}


@pytest.mark.parametrize("path", ["/wallets", "/wallet/create"])
@pytest.mark.parametrize("scopes", [(WRITE,), (LIMITS,), (*set(SCOPES) - {LIMITS, ADMIN},)])
def test_overdraft_limit_needs_its_own_scope(path: str, scopes: tuple[str, ...]) -> None:
    chosen = {"id": str(uuid4())}
    assert key(*scopes).post(path, OVERDRAFT | chosen).code == "forbidden"
    assert not Wallet.objects.filter(id=chosen["id"]).exists()
    assert key(WRITE, LIMITS).post(path, OVERDRAFT | chosen).status == 201
    assert key(ADMIN).post(path, OVERDRAFT | chosen).headers["idempotent-replayed"] == "true"
    assert key(*scopes).post(path, OVERDRAFT | chosen).code == "forbidden"


def test_other_limits_need_no_own_scope() -> None:
    for limits in ({"overdraftLimit": "0"}, {"maxBalance": "10"}):
        assert key(WRITE).post("/wallets", limits).status == 201


@pytest.mark.parametrize(
    ("permissions", "status"),
    [(("change_wallet",), 403), (("adjust_wallet",), 403), (("change_wallet", "adjust_wallet"), 201)],
)
def test_operator_who_adjusts_balances_may_set_overdraft_limits(
    permissions: tuple[str, ...], status: int
) -> None:
    assert session_of(new_operator(*permissions)).post("/wallets", OVERDRAFT).status == status


def test_owner_may_not_set_overdraft_limit_or_status(world: World, unchanged: Unchanged) -> None:
    wallet = world.ids["wallet"]
    with unchanged(wallet):
        assert world.owner.post("/wallets", {"overdraftLimit": "1"}).code == "forbidden"
        for status in ("ACTIVE", "FROZEN", "CLOSED"):
            answer = world.owner.patch(f"/wallets/{wallet}", {"status": status, "label": "x"})
            assert answer.code == "forbidden"
    assert len(world.owner.get("/wallets").json["items"]) == 1
    assert world.bank.patch(f"/wallets/{wallet}", {"status": "FROZEN"}).status == 200
    assert world.owner.deposit(wallet, 1).code == "wallet_frozen"


# --- Restricted keys: moving money ------------------------------------------------------------------
def test_payer_does_not_see_the_balance_of_the_receiver(world: World) -> None:
    wallet, other = world.wallets
    world.bank.deposit(other, "7777")
    first = world.owner.transfer(wallet, other, "1", key="tip")
    again = world.owner.transfer(wallet, other, "1", key="tip")
    read = world.owner.get(f"/transfers/{first.json['id']}")
    assert first.json == again.json == read.json
    assert first.json["source"]["balance"] == "89.00"
    target = first.json["target"]
    assert (target["walletId"], target["amount"]) == (other, "1.00")
    assert (target["balance"], target["sequence"]) == (None, None)
    [result] = world.owner.bulk({"sourceWalletId": wallet, "targetWalletId": other, "amount": "1"}).json[
        "results"
    ]
    assert result["transfer"]["target"]["balance"] is None
    assert world.bank.get(f"/transfers/{first.json['id']}").json["target"]["balance"] == "7788.00"


def freeze(bank: Api, wallet: str) -> None:
    assert bank.patch(f"/wallets/{wallet}", {"status": "FROZEN"}).status == 200


def close(bank: Api, wallet: str) -> None:
    bank.withdraw(wallet, bank.balance(wallet))
    assert bank.patch(f"/wallets/{wallet}", {"status": "CLOSED"}).status == 200


def fill(bank: Api, wallet: str) -> None:
    Wallet.objects.filter(id=wallet).update(max_balance=bank.balance(wallet))


REASONS: dict[Callable[[Api, str], None], str] = {
    freeze: "wallet_frozen",
    close: "wallet_closed",
    fill: "balance_limit_exceeded",
}


@pytest.mark.parametrize("refuse", REASONS)
def test_target_refusal_is_hidden_without_read_permission(
    world: World, unmoved: Unchanged, refuse: Callable[[Api, str], None]
) -> None:
    wallet, other = world.wallets
    refuse(world.bank, other)
    item = {"sourceWalletId": wallet, "targetWalletId": other, "amount": "1"}
    with unmoved(wallet, other):
        for api in (world.owner, session_of(world.user), key(TRANSFER)):
            answer = api.transfer(wallet, other, "1", key=f"{api.key}")
            assert answer.code == "target_cannot_receive"
            assert api.transfer(wallet, other, "1", key=f"{api.key}").code == "target_cannot_receive"
            assert api.bulk(item).json["results"][0]["problem"]["code"] == "target_cannot_receive"
            assert api.bulk(item, atomic=True).code == "target_cannot_receive"
            # The ledger records the same reason, which the sender can read.
            assert Operation.objects.get(id=answer.json["operationId"]).reason == "target_cannot_receive"
        # The checks before it do not reveal the reason either.
        assert world.owner.transfer(wallet, other, "1000").code == "insufficient_funds"
        for api in (world.bank, key(TRANSFER, READ)):
            assert api.transfer(wallet, other, "1").code == REASONS[refuse]


@pytest.mark.parametrize("refuse", [freeze, fill])
def test_target_refusal_is_shown_to_the_targets_owner(
    world: World, refuse: Callable[[Api, str], None]
) -> None:
    savings = world.owner.open(currency="EUR")
    refuse(world.bank, savings)
    assert world.owner.transfer(world.ids["wallet"], savings, "1").code == REASONS[refuse]


def test_reversal_hides_the_refusal_of_a_foreign_target(world: World, unmoved: Unchanged) -> None:
    received = world.stranger.history(world.ids["other"])[0]["id"]
    freeze(world.bank, world.ids["wallet"])
    with unmoved(*world.wallets):
        assert world.stranger.reverse(received).code == "target_cannot_receive"
        assert world.bank.reverse(received).code == "wallet_frozen"


@pytest.mark.parametrize("refuse", REASONS)
def test_accepted_transfer_hides_the_targets_refusal(
    world: World, refuse: Callable[[Api, str], None]
) -> None:
    wallet, other = world.wallets
    body = {"sourceWalletId": wallet, "targetWalletId": other, "amount": "1"}
    later = {"Prefer": "respond-async"}
    savings = world.owner.open(currency="EUR")
    hidden = world.owner.post("/transfers", body, **later).json["id"]
    seen = world.bank.post("/transfers", body, **later).json["id"]
    own = world.owner.post("/transfers", body | {"targetWalletId": savings}, **later).json["id"]
    of_old_code = world.bank.post("/transfers", body, **later).json["id"]
    with psycopg.connect(cluster.url("postgres")) as database:
        database.execute("UPDATE inbox SET sees_target = NULL WHERE id = %s", [of_old_code])
    for target in (other, savings):
        refuse(world.bank, target)
    while drain(500):
        pass
    reasons = [world.bank.get(f"/operations/{id}").json["reason"] for id in (hidden, of_old_code, seen, own)]
    assert reasons == ["target_cannot_receive"] * 2 + [REASONS[refuse]] * 2


def test_receiver_does_not_see_the_balance_of_the_payer(world: World) -> None:
    transfer = world.stranger.get(f"/transfers/{world.ids['transfer']}").json
    assert transfer["target"]["balance"] == "10.00"
    source = transfer["source"]
    assert (source["balance"], source["sequence"], source["idempotencyKey"]) == (None, None, None)
    assert world.stranger.get(f"/operations/{source['id']}").code == "operation_not_found"
    assert world.stranger.get(f"/operations/{transfer['target']['id']}").json["balance"] == "10.00"


def test_transfer_between_own_wallets_shows_both_balances(world: World) -> None:
    savings = world.owner.open(currency="EUR")
    transfer = world.owner.transfer(world.ids["wallet"], savings, "1").json
    assert (transfer["source"]["balance"], transfer["target"]["balance"]) == ("89.00", "1.00")
    assert world.owner.get(f"/transfers/{transfer['id']}").json == transfer


def test_key_of_another_client_is_answered_like_a_foreign_wallet(world: World, unchanged: Unchanged) -> None:
    wallet, other = world.wallets
    rent = {"sourceWalletId": wallet, "targetWalletId": other, "amount": "10"}
    world.owner.transfer(wallet, other, "1000", key="too-much")
    with unchanged(wallet, other):
        assert world.stranger.transfer(wallet, other, "10", key="rent").code == "wallet_not_found"
        assert world.stranger.transfer(wallet, other, "1000", key="too-much").code == "wallet_not_found"
        for atomic in (False, True):
            answer = world.stranger.bulk({**rent, "idempotencyKey": "rent"}, atomic=atomic)
            refused = answer.json if atomic else answer.json["results"][0]["problem"]
            assert refused["code"] == "wallet_not_found"
            assert "operationId" not in refused


def test_bulk_refuses_only_items_on_foreign_wallets(world: World, unmoved: Unchanged) -> None:
    wallet, other = world.wallets
    deposits = [{"walletId": id, "operationType": "DEPOSIT", "amount": "1"} for id in (wallet, other)]
    with unmoved(other):
        answer = world.owner.bulk(*deposits)
    assert [result["status"] for result in answer.json["results"]] == [201, 404]
    with unmoved(wallet, other):
        assert world.owner.bulk(*deposits, atomic=True).json["errors"][0]["field"] == "operations.1"


def test_asynchronous_operations_respect_the_owner_restriction(world: World, unchanged: Unchanged) -> None:
    wallet, other = world.wallets
    later = {"Prefer": "respond-async"}
    deposit = {"operationType": "DEPOSIT", "amount": "1"}
    with unchanged(other):
        assert world.owner.post(f"/wallets/{other}/operation", deposit, **later).code == "wallet_not_found"
    accepted = world.owner.post(f"/wallets/{wallet}/operation", deposit, **later)
    assert accepted.status == 202
    path = f"/operations/{accepted.json['id']}"
    assert InboxEntry.objects.get(id=accepted.json["id"]).actor == f"key:{prefix_of(world.owner.key or '')}"
    assert world.owner.get(path).json["status"] == "PENDING"
    assert world.stranger.get(path).code == "operation_not_found"
    while drain(500):
        pass
    assert world.owner.get(path).json["status"] == "COMPLETED"


def test_only_the_receiver_can_reverse_a_transfer(world: World, unchanged: Unchanged) -> None:
    received = world.stranger.history(world.ids["other"])[0]["id"]
    with unchanged(*world.wallets):
        assert world.owner.reverse(world.ids["transfer"]).code == "forbidden"
        assert world.stranger.reverse(world.ids["transfer"]).code == "operation_not_found"
        assert world.owner.reverse(received).code == "operation_not_found"
    given_back = world.stranger.reverse(received)
    assert (given_back.status, given_back.json["balance"]) == (201, "0.00")
    assert world.owner.balance(world.ids["wallet"]) == "100.00"
    Books(world.wallets).verify()


def test_wallet_with_a_new_owner_is_visible_only_to_it(world: World, unchanged: Unchanged) -> None:
    wallet, hold = world.ids["wallet"], world.ids["hold"]
    stranger = Wallet.objects.get(id=world.ids["other"]).owner_id
    Wallet.objects.filter(id=wallet).update(owner_id=stranger)
    with unchanged(wallet):
        assert world.owner.capture(hold).code == "hold_not_found"
        assert world.owner.deposit(wallet, 1).code == "wallet_not_found"
        assert world.owner.get(f"/wallets/{wallet}").code == "wallet_not_found"
    assert world.stranger.capture(hold).status == 201
