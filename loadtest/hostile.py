"""Requests that may be expensive, by endpoint. `make request-costs` sends them.

Every request has at most 64 KiB, head and body together. `Seed` has the values of `{wallet}` and the like.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

MAX_BYTES: Final = 65_536
STRANGER: Final = "stranger"  # sends neither key nor session
SESSION: Final = "session"  # of a user who has signed up
ENDING_SESSION: Final = "leaving"  # a session that the request ends
FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"
MULTIPART: Final = "multipart/form-data; boundary=x"

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class HostileRequest:
    attack: str
    path: str
    method: str = "GET"
    sender: str = STRANGER
    fields: Fields = ()  # headers; a name may be repeated
    body: bytes = field(default=b"", repr=False)
    content_type: str = JSON


@dataclass(frozen=True, slots=True)
class HostileEndpoint:
    """`name` is the view and method of `NEEDED` (wallets/access/rights.py), or the path of a page."""

    name: str
    requests: tuple[HostileRequest, ...]


# --- Heads ------------------------------------------------------------------------------------------
FIELD_BYTES: Final = 8000  # gunicorn accepts 8,190 bytes for a header, and 100 headers


def _repeated(name: str, value: str, times: int = 7) -> Fields:
    return ((name, value * (FIELD_BYTES // len(value))),) * times


HEADS: Final[dict[str, Fields]] = {
    "Accept of 8,000 bytes": _repeated("Accept", "a/b,", 1),
    "Accept of 56,000 bytes": _repeated("Accept", "a/b;q=0.1,"),
    "Accept-Language of 56,000 bytes": _repeated("Accept-Language", "xx-yy;q=0.1,"),
    "Accept-Encoding of 56,000 bytes": _repeated("Accept-Encoding", "a;q=0.1,"),
    "56,000 bytes of cookies": _repeated("Cookie", "a=b; "),
    "a session that does not exist": (("Cookie", f"sessionid={'a' * 32}"),),
    "If-None-Match of 56,000 bytes": _repeated("If-None-Match", '"a",'),
    "Prefer of 56,000 bytes": _repeated("Prefer", "a;b,"),
    "X-Forwarded-For of 56,000 bytes": _repeated("X-Forwarded-For", "1.1.1.1,"),
    "90 fields": tuple((f"X-{number}", "a" * 600) for number in range(90)),
}
QUERIES: Final = {
    "a query of 1,900 parameters": "?" + "&".join(["a"] * 1900),
    "a cursor of 3,900 bytes": f"?cursor={'e30' * 1300}",
    "a limit of 3,900 digits": f"?limit={'9' * 3900}",
}
AUTHORIZATIONS: Final = {
    "an unknown API key": f"Bearer wk_unknown0_{'a' * 43}",
    "Authorization of 8,000 bytes": f"Bearer wk_{'a' * 7980}",
}


def gets(path: str, sender: str = STRANGER) -> Iterator[HostileRequest]:
    """Return the hostile requests for an endpoint that reads."""
    yield HostileRequest("nothing unusual", path, sender=sender)
    for attack, fields in HEADS.items():
        yield HostileRequest(attack, path, sender=sender, fields=fields)
    for attack, value in AUTHORIZATIONS.items():
        yield HostileRequest(attack, path, fields=(("Authorization", value),))
    if "?" not in path:
        for attack, query in QUERIES.items():
            yield HostileRequest(attack, path + query, sender=sender)


# --- Bodies -----------------------------------------------------------------------------------------
def _object(value: Any, **fields: Any) -> bytes:
    return json.dumps({**fields, "metadata": value}, separators=(",", ":")).encode()


_MAX_BODY_BYTES: Final = 63_000  # the rest of the 64 KiB is for the head
BODIES: Final = {
    "6,000 unknown keys": json.dumps({f"{number:x}": 0 for number in range(6000)}).encode(),
    "nested 30,000 deep": b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "nested 900 deep": b'{"metadata":' + b'{"a":' * 900 + b"0" + b"}" * 901,
    "metadata of 20,000 lists": _object({"a": [[]] * 20_000}),
    "metadata of 30,000 numbers": _object({"a": [1] * 30_000}),
    "metadata of 20,000 objects": _object({"a": [{}] * 20_000}),
    "metadata of 6,000 keys": _object({f"{number:x}": 0 for number in range(6000)}),
    "a number of 60,000 digits": b'{"amount":' + b"9" * 60_000 + b"}",
    "metadata with a number of 60,000 digits": b'{"metadata":{"a":0.' + b"1" * 60_000 + b"}}",
    "metadata with a long fraction": b'{"metadata":{"a":1.' + b"0" * 50_000 + b"1e-300}}",
    "1e1000000": b'{"amount":1e1000000,"metadata":{"a":1e1000000}}',
    "texts of 15,000 characters": json.dumps(
        dict.fromkeys(("name", "email", "password", "description"), "a" * 15000)
    ).encode(),
    "escapes": b'{"description":"' + b"\\u0430" * (_MAX_BODY_BYTES // 6) + b'"}',
    "an id of 60,000 digits": b'{"id":"' + b"1" * 60_000 + b'"}',
}


def posts(path: str, sender: str = STRANGER, method: str = "POST", **good: Any) -> Iterator[HostileRequest]:
    """Return the hostile requests for an endpoint with a body; `good` is a body that it accepts."""
    yield HostileRequest("nothing unusual", path, method, sender, body=json.dumps(good).encode())
    for attack, body in BODIES.items():
        yield HostileRequest(attack, path, method, sender, body=body)
    body = json.dumps(good | {f"{number:x}": 0 for number in range(2000)}).encode()
    yield HostileRequest("2,000 unknown keys", path, method, sender, body=body)
    key = (("Idempotency-Key", "a" * FIELD_BYTES),)
    yield HostileRequest(
        "Idempotency-Key of 8,000 bytes", path, method, sender, key, json.dumps(good).encode()
    )
    yield HostileRequest(
        "no session, 56,000 bytes of cookies", path, method, fields=HEADS["56,000 bytes of cookies"]
    )


def _bulk(item: str, atomic: bool = False) -> bytes:
    items = ",".join([item] * min(1000, (_MAX_BODY_BYTES - 50) // (len(item) + 1)))
    return f'{{"operations":[{items}],"atomic":{str(atomic).lower()}}}'.encode()


def bulks(path: str, sender: str) -> Iterator[HostileRequest]:
    yield from posts(path, sender, operations=[])
    good = '{"walletId":"{wallet}","operationType":"DEPOSIT","amount":1}'.replace("{wallet}", "0" * 36)
    items = {
        "1,000 empty items": "{}",
        "1,000 nulls": "null",
        "items with unknown keys": '{"operationType":0,"a":0,"b":0,"c":0,"d":0,"e":0}',
        "items that are wrong in every field": '{"operationType":0,"walletId":0,"amount":"x","id":0}',
        "deposits into an unknown wallet": good,
        "deposits": good.replace("0" * 36, "{wallet}"),
        "transfers": '{"sourceWalletId":"{wallet}","targetWalletId":"{other}","amount":900000}',
    }
    for attack, item in items.items():
        yield HostileRequest(attack, path, "POST", sender, body=_bulk(item))
    yield HostileRequest(
        "20,000 empty items", path, "POST", sender, body=b'{"operations":[' + b"{}," * 20_000 + b"{}]}"
    )
    yield HostileRequest(
        "deposits, all or nothing", path, "POST", sender, body=_bulk(items["deposits"], atomic=True)
    )


def forms(path: str, sender: str = STRANGER, **good: str) -> Iterator[HostileRequest]:
    """Return the hostile requests for a page with a form, with and without its CSRF token."""
    many = "&".join(f"{number:x}=" for number in range(9000)).encode()
    bodies = {
        "a form": "&".join(f"{name}={value}" for name, value in good.items()).encode(),
        "9,000 fields": many,
        "a field of 60,000 bytes": b"username=" + b"a" * 60_000,
        "60,000 bytes of percent signs": b"username=" + b"%41" * 20_000,
    }
    with_token = {f"{attack}, with the token": TOKEN + body for attack, body in bodies.items()}
    for attack, body in (bodies | with_token).items():
        yield HostileRequest(attack, path, "POST", sender, body=body, content_type=FORM)
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
    file = b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n\r\n'
    lines = b"--x\r\n" + b"A: b\r\n" * 10_000 + b"\r\n\r\n"
    for attack, content in (("parts", part), ("files", file), ("lines in a part's head", lines)):
        times = _MAX_BODY_BYTES // len(content)
        body = content * times + b"--x--\r\n"
        yield HostileRequest(f"{times} {attack}", path, "POST", sender, body=body, content_type=MULTIPART)


def decomposed_passwords(path: str, **fields: str) -> Iterator[HostileRequest]:
    """Return a request whose password is hashed twice: as it was sent, and in the form NFC."""
    body = fields | CREDENTIALS | {"password": DECOMPOSED}
    yield HostileRequest("a decomposed password", path, "POST", body=json.dumps(body).encode())


TOKEN: Final = b"csrfmiddlewaretoken={token}&"


# --- The endpoints ----------------------------------------------------------------------------------
READ, WRITE, DEPOSIT, WITHDRAW = "wallets:read", "wallets:write", "operations:deposit", "operations:withdraw"
TRANSFER, HOLD, ADMIN = "transfers:write", "holds:write", "admin"
V1: Final = "/api/v1"
WALLET: Final = f"{V1}/wallets/{{wallet}}"
WEBHOOK: Final = f"{V1}/webhooks/{{webhook}}"
CREDENTIALS: Final = {"email": "{name}@example.com", "password": "{password}"}
DECOMPOSED: Final = "cre\u0300me bru\u0302le\u0301e 7"  # letters with combining accents
PAGE_CREDENTIALS: Final = {"username": "{name}@example.com", "password": "{password}"}
DEPOSIT_FIELDS: Final = {"operationType": "DEPOSIT", "amount": "1"}
WEBHOOK_FIELDS: Final = {"name": "{name}", "url": "http://127.0.0.1:9/"}


def _endpoint(name: str, *requests: Iterator[HostileRequest]) -> HostileEndpoint:
    return HostileEndpoint(name, tuple(request for found in requests for request in found))


def _page(path: str, *requests: Iterator[HostileRequest], sender: str = STRANGER) -> HostileEndpoint:
    return _endpoint(path, gets(path, sender), *requests)


API: Final = (
    _endpoint("WalletOperation POST", posts(f"{WALLET}/operation", DEPOSIT, **DEPOSIT_FIELDS)),
    _endpoint(
        "WalletOperationInBody POST", posts(f"{V1}/wallet", DEPOSIT, walletId="{wallet}", **DEPOSIT_FIELDS)
    ),
    _endpoint("WalletById GET", gets(WALLET, READ)),
    _endpoint("WalletById PATCH", posts(WALLET, WRITE, "PATCH", label="a")),
    _endpoint(
        "Wallets GET",
        gets(f"{V1}/wallets", READ),
        gets(f"{V1}/wallets?limit=500&label=a&status=FROZEN", READ),
    ),
    _endpoint("Wallets POST", posts(f"{V1}/wallets", WRITE)),
    _endpoint("OpenWallet POST", posts(f"{V1}/wallet/create", WRITE)),
    _endpoint(
        "WalletOperations GET",
        gets(f"{WALLET}/operations", READ),
        gets(f"{WALLET}/operations?limit=500", READ),
    ),
    _endpoint(
        "WalletBalance GET",
        gets(f"{WALLET}/balance", READ),
        gets(f"{WALLET}/balance?at=2020-01-01T00:00:00Z", READ),
    ),
    _endpoint("WalletStatement GET", gets(f"{WALLET}/statement", READ), gets("{statement}", READ)),
    _endpoint("WalletHolds GET", gets(f"{WALLET}/holds", READ), gets(f"{WALLET}/holds?limit=500", READ)),
    _endpoint("WalletHolds POST", posts(f"{WALLET}/holds", HOLD, amount="1")),
    _endpoint("WalletEvents GET", gets(f"{WALLET}/events?seconds=0", READ)),
    _endpoint(
        "Operations GET",
        gets(f"{V1}/operations?limit=500&minAmount=1000000", READ),
        gets(f"{V1}/operations?limit=500&metadata.kind=bonus&status=REJECTED", READ),
    ),
    _endpoint("Operations POST", bulks(f"{V1}/operations", DEPOSIT)),
    _endpoint("OperationById GET", gets(f"{V1}/operations/{{operation}}", READ)),
    _endpoint(
        "OperationReversal POST", posts(f"{V1}/operations/{{operation}}/reversal", WITHDRAW, amount="0.01")
    ),
    _endpoint(
        "Transfers POST",
        posts(f"{V1}/transfers", TRANSFER, sourceWalletId="{wallet}", targetWalletId="{other}", amount="1"),
    ),
    _endpoint("TransferById GET", gets(f"{V1}/transfers/{{transfer}}", READ)),
    _endpoint("HoldById GET", gets(f"{V1}/holds/{{hold}}", READ)),
    _endpoint("HoldCapture POST", posts(f"{V1}/holds/{{hold}}/capture", HOLD, amount="0.01")),
    _endpoint("HoldVoid POST", posts(f"{V1}/holds/{{hold}}/void", HOLD)),
    _endpoint("Webhooks GET", gets(f"{V1}/webhooks", ADMIN)),
    _endpoint("Webhooks POST", posts(f"{V1}/webhooks", ADMIN, **WEBHOOK_FIELDS)),
    _endpoint("WebhookById GET", gets(WEBHOOK, ADMIN)),
    _endpoint("WebhookById PATCH", posts(WEBHOOK, ADMIN, "PATCH", batch=2)),
    _endpoint("WebhookById DELETE", posts(f"{V1}/webhooks/{{nothing}}", ADMIN, "DELETE")),
    _endpoint("WebhookRotation POST", posts(f"{WEBHOOK}/rotation", ADMIN)),
    _endpoint("WebhookTest POST", posts(f"{V1}/webhooks/{{nothing}}/test", ADMIN)),
    _endpoint("WebhookDeliveries GET", gets(f"{WEBHOOK}/deliveries?limit=500", ADMIN)),
    _endpoint("WebhookDeadLetters GET", gets(f"{WEBHOOK}/dead-letters?limit=500", ADMIN)),
    _endpoint("WebhookDeadLetters DELETE", posts(f"{WEBHOOK}/dead-letters", ADMIN, "DELETE")),
    _endpoint("WebhookReplay POST", posts(f"{WEBHOOK}/replay", ADMIN)),
    _endpoint(
        "SignUp POST",
        posts(f"{V1}/signup", name="Anna", **CREDENTIALS),
        decomposed_passwords(f"{V1}/signup", name="Anna"),
    ),
    _endpoint("LogIn POST", posts(f"{V1}/login", **CREDENTIALS), decomposed_passwords(f"{V1}/login")),
    _endpoint("LogOut POST", posts(f"{V1}/logout", ENDING_SESSION)),
    _endpoint("Me GET", gets(f"{V1}/me", SESSION)),
    _endpoint("MyWallet GET", gets(f"{V1}/me/wallet", SESSION)),
)
PAGES: Final = (
    _page("/"),
    _page("/", sender=SESSION),
    _page("/signup", forms("/signup", name="Anna", **CREDENTIALS)),
    _page("/login", forms("/login", **PAGE_CREDENTIALS)),
    _page("/logout", forms("/logout")),
    _page("/password", forms("/password", SESSION), sender=SESSION),
    _page("/password/forgotten", forms("/password/forgotten", email="{name}@example.com")),
    _page("/password/new/a/b", forms("/password/new/a/b")),
    _page("/email/verify", forms("/email/verify", SESSION), sender=SESSION),
    _page("/email/verify/1/x", forms("/email/verify/1/x")),
    _page("/language", forms("/language", language="ru")),
    _page("/wallets/{own}", sender=SESSION),
    _page("/wallets/{own}/balance", sender=SESSION),
    _page("/wallets/{own}/statement.csv", sender=SESSION),
    _page("/wallets/{own}/transfer", forms("/wallets/{own}/transfer", SESSION), sender=SESSION),
    _page("/transfers/{transfer}", sender=SESSION),
    _page("/admin/"),
    _page("/admin/login/", forms("/admin/login/", **PAGE_CREDENTIALS)),
    _page("/admin/second-factor/code/", forms("/admin/second-factor/code/")),
    _page("/nope"),
    _page("/static/pages/pages.css"),
    _page("/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"),
    _page("/static/nope"),
)
DOCUMENTS: Final = (
    _page("/api/schema", gets("/api/schema?format=json")),
    _page("/api/docs"),
    _page("/api/redoc"),
    _page("/errors/insufficient_funds"),
    _page("/livez"),
    _page("/readyz"),
    _page("/metrics", gets("/metrics", ADMIN)),
)
ENDPOINTS: Final = (*API, *PAGES, *DOCUMENTS)
