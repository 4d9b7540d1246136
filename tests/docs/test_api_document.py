"""docs/api.md lists the errors of every request in the order of their checks, as the service returns them."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import LazySettings, settings

from tests.conftest import Unchanged
from tests.support.client import JSON, Answer, Api, InProcess
from tests.support.keys import new_key, new_owner
from tests.support.openapi import inlined
from wallets import problems
from wallets.access import rights
from wallets.api import urls
from wallets.ledger import rules

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGE = (ROOT / "docs" / "api.md").read_text()
WITHOUT_OWN_ERRORS = {"POST /logout", "GET /me"}
REASON_ONLY = problems.RejectedByOperator  # the reason of an operation; no response has it
OF_ANY_REQUEST = {
    "bad_request",
    "not_found",
    "method_not_allowed",
    "internal_error",
}  # the document omits them

Row = tuple[str, int]


def rows_of(text: str) -> list[Row]:
    return [
        (code, int(status)) for code, status in re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE)
    ]


def requests_of(heading: str) -> list[str]:
    return re.findall(r"`([A-Z]+ /[^`]*)`", heading)


HEADINGS = re.findall(r"^### (.*)\n((?:(?!^##).*\n)*)", PAGE, re.MULTILINE)
SECTIONS = {request: rows_of(text) for heading, text in HEADINGS for request in requests_of(heading)}
KEYED = [
    line
    for line, rows in SECTIONS.items()
    if ("idempotency_key_reused", 422) in rows and "/webhooks" not in line  # webhooks move no money
]
FIRST_CHECKS, BODY_CHECKS, AT_ANY_TIME = (
    rows_of(table) for table in re.findall(r"\| code \|.*\n(?:\|.*\n)+", PAGE[: PAGE.index("\n### ")])
)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Map each request, such as GET /wallets/{id}, to its operation in the OpenAPI document."""
    paths = inlined(Api().sender.send("GET", "/api/schema?format=json").json)["paths"]
    return {
        f"{method.upper()} {re.sub(r'{.*?}', '{id}', path.removeprefix('/api/v1'))}": operation
        for path, item in paths.items()
        for method, operation in item.items()
    }


def first_checks(operation: dict[str, Any]) -> list[Row]:
    """Return the checks of every request; a request that needs no credentials skips 401 and 403."""
    needs_credentials = "security" in operation
    return [row for row in FIRST_CHECKS if needs_credentials or row[1] not in (401, 403)]


def test_every_request_has_one_section_with_a_table(document: dict[str, Any]) -> None:
    named = [request for heading, _ in HEADINGS for request in requests_of(heading)]
    assert sorted(named) == sorted(document)
    assert {line for line, rows in SECTIONS.items() if not rows} == WITHOUT_OWN_ERRORS


@pytest.mark.parametrize("request_line", SECTIONS)
def test_page_and_document_list_the_same_errors_in_order(document: dict[str, Any], request_line: str) -> None:
    operation = document[request_line]
    expected = [
        *first_checks(operation),
        *(BODY_CHECKS if "requestBody" in operation else []),
        *SECTIONS[request_line],
        *AT_ANY_TIME,
    ]
    rows = [row for row in dict.fromkeys(expected) if row[0] not in OF_ANY_REQUEST]
    for status, answer in operation["responses"].items():
        content = answer.get("content", {}).get(problems.CONTENT_TYPE)
        listed = [example["value"]["code"] for example in content["examples"].values()] if content else []
        assert listed == [code for code, row_status in rows if row_status == int(status)], status
    assert {str(status) for _, status in rows} <= operation["responses"].keys()


def test_page_lists_every_problem_with_its_status() -> None:
    shown = {*FIRST_CHECKS, *BODY_CHECKS, *AT_ANY_TIME, *(row for rows in SECTIONS.values() for row in rows)}
    kinds = problems.Problem.__subclasses__()
    returned = [kind for kind in kinds if kind is not REASON_ONLY]
    # In an atomic bulk, a problem with another status is a 409.
    assert {(kind.code, kind.status) for kind in returned} <= shown
    assert {code for code, _ in shown} == {kind.code for kind in returned}
    assert f"`{REASON_ONLY.code}`" in PAGE


def test_page_lists_the_scope_of_every_request() -> None:
    rows = re.findall(r"^\| `([a-z]+:[a-z]+|admin)` \| (.*) \|$", PAGE, re.MULTILINE)
    rows += [(rights.PERSON, cell) for cell in re.findall(r"^\| none, but a session \| (.*) \|$", PAGE, re.M)]
    shown = {(scope, line) for scope, cell in rows for line in requests_of(cell)}
    assert shown == {
        (scope, f"{method} /{re.sub('<.*?>', '{id}', str(route.pattern))}")
        for route in urls.urlpatterns
        for method, scopes in rights.NEEDED[getattr(route.callback, "view_class").__name__].items()  # noqa: B009
        for scope in scopes
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`(?:tests/)?((?:\w+/)*test_\w+\.py)(?:::(test_\w+))?", page.read_text())
    missing = [
        (file, test)
        for file, test in named
        if not any(f"def {test}" in found.read_text() for found in (ROOT / "tests").rglob(file))
    ]
    assert missing == []


# --- The order of the rules -------------------------------------------------------------------------
def codes_of_rules() -> list[str]:
    """Return the codes of the table in the docstring of rules.py, in its order."""
    lines = re.findall(r"^ *\d+\. .* {2,}(\w+)(?: \(not recorded\))?$", str(rules.__doc__), re.MULTILINE)
    return [getattr(problems, name).code for name in lines]


@pytest.mark.parametrize("request_line", KEYED)
def test_errors_after_the_key_follow_the_order_of_rules(request_line: str) -> None:
    codes = [code for code, _ in SECTIONS[request_line]]
    # A bulk lists the code twice: for its own key, and for the keys of its items. The last one counts.
    after_key = codes[len(codes) - codes[::-1].index("idempotency_key_reused") :]
    own = [code for code in after_key if code not in ("wallet_not_found", "external_id_taken")]
    order = iter(codes_of_rules())
    assert [
        code for code in own if code not in order
    ] == []  # `in` consumes the iterator: each code is searched after the one before


def test_table_of_the_rules_is_read_completely() -> None:
    assert len(codes_of_rules()) == len(re.findall(r"^ *\d+\. ", str(rules.__doc__), re.MULTILINE)) > 10
    assert set(problems.REJECTIONS) - {REASON_ONLY.code} | {"validation_error"} == set(codes_of_rules())


# --- The checks before the rules ---------------------------------------------------------------------
@dataclass
class InvalidRequest:
    """A request that fails every check, and that is corrected one check at a time."""

    method: str
    address: str
    valid: bytes | None
    settings: LazySettings
    checks_body_rights: bool = False  # whether the fields of the body need further rights
    query: str = "?unknown=1"
    is_allowed: bool = False

    def __post_init__(self) -> None:
        self.headers = {"Accept": "text/html", "Content-Type": "text/plain"}
        self.content = b" " * (settings.MAX_BODY_BYTES + 1) if self.valid is not None else None
        self.settings.API_ACCESS = "key"
        # The first key lacks the scope of the request; the second lacks the rights for its body.
        unsuitable = new_key(rights.READ if self.method != "GET" else rights.HOLD)
        self.needs_session = self.address in ("/me", "/me/wallet", "/logout")
        insufficient = new_key(rights.WRITE, rights.WITHDRAW, owner=new_owner(), is_restricted=True)
        self.keys = [unsuitable, insufficient] if self.checks_body_rights else [unsuitable]

    def send(self, api: Api) -> Answer:
        if self.is_allowed and self.needs_session:
            del self.headers["Authorization"]
            assert isinstance(api.sender, InProcess)
            api.sender.client.force_login(new_owner())
        headers = dict(self.headers)
        if self.content is None:
            del headers["Content-Type"]
        return api.sender.send(self.method, f"/api/v1{self.address}{self.query}", self.content, headers)


def correct_accept(invalid: InvalidRequest) -> None:
    invalid.headers["Accept"] = "*/*"


def send_a_key(invalid: InvalidRequest) -> None:
    invalid.headers["Authorization"] = f"Bearer {invalid.keys.pop(0)}"


def send_a_better_key(invalid: InvalidRequest) -> None:
    invalid.is_allowed = not invalid.keys
    key = invalid.keys.pop(0) if invalid.keys else new_key(rights.ADMIN)
    invalid.headers["Authorization"] = f"Bearer {key}"


def correct_content_type(invalid: InvalidRequest) -> None:
    invalid.headers["Content-Type"] = JSON


def shorten_body(invalid: InvalidRequest) -> None:
    invalid.content = b"{"


def send_json(invalid: InvalidRequest) -> None:
    invalid.content = b'{"unknown": 1}'


def send_valid_body(invalid: InvalidRequest) -> None:
    invalid.content, invalid.query = invalid.valid, ""


CORRECT: dict[str, Callable[[InvalidRequest], None]] = {
    "not_acceptable": correct_accept,
    "unauthorized": send_a_key,
    "forbidden": send_a_better_key,
    "unsupported_media_type": correct_content_type,
    "payload_too_large": shorten_body,
    "malformed_json": send_json,
    "validation_error": send_valid_body,
}


@pytest.mark.parametrize("request_line", SECTIONS)
def test_first_failed_check_is_the_response(
    api: Api, document: dict[str, Any], settings: LazySettings, request_line: str
) -> None:
    """Correct a request that fails every check, step by step, until only the named object does not exist."""
    method, _, path = request_line.partition(" ")
    body = document[request_line].get("requestBody")
    examples = body["content"][JSON]["examples"].values() if body else []
    valid = next((json.dumps(example["value"]).encode() for example in examples), None)
    checks_body_rights = ("forbidden", 403) in SECTIONS[request_line]
    invalid = InvalidRequest(method, path.replace("{id}", str(uuid4())), valid, settings, checks_body_rights)
    expected = [
        *first_checks(document[request_line]),
        *(BODY_CHECKS if valid is not None else []),
        *SECTIONS[request_line],
    ]
    for code, status in expected:
        if code in OF_ANY_REQUEST or code in ("too_many_requests", "account_not_found"):
            continue
        if code not in CORRECT and not code.endswith("_not_found"):
            break
        if code == "validation_error" and not invalid.query:  # the schema is satisfied; this is a later check
            break
        answer = invalid.send(api)
        if code.endswith("_not_found") and answer.status == 200:  # the result of one item of a bulk
            break
        assert (answer.code, answer.status) == (code, status)
        if code.endswith("_not_found"):
            break
        CORRECT[code](invalid)


# --- The examples -----------------------------------------------------------------------------------
@pytest.mark.parametrize("command", re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
@pytest.mark.slow
def test_examples_of_the_page_work(live_api: Api, service: str, command: str) -> None:
    wallet, other = (live_api.open(deposit="100", currency="EUR") for _ in range(2))
    named = {
        "API": f"{service}/api/v1",
        "WALLET": wallet,
        "OTHER": other,
        "OPERATION": live_api.deposit(wallet, "50").json["id"],
        "HOLD": live_api.post(f"/wallets/{wallet}/holds", {"amount": "20"}).json["id"],
    }
    done = subprocess.run(
        ["bash", "-euc", command], env=os.environ | named, capture_output=True, text=True, check=True
    )
    if "text/csv" in command:
        assert done.stdout.count("\n") == 5  # the header, both balances and two deposits
        return
    if "/events" in command:
        assert done.stdout.startswith(": hello\n")
        return
    answer = json.loads(done.stdout)
    assert "code" not in answer, answer
    assert answer.keys() & {"id", "results", "balance", "walletId", "items"}


def test_key_of_a_bulk_leaves_room_for_item_numbers(api: Api, unchanged: Unchanged) -> None:
    wallet = api.open(currency="EUR")
    deposit = {"walletId": wallet, "operationType": "DEPOSIT", "amount": "1"}
    many = {"operations": [deposit] * 1000}
    with unchanged(wallet):
        refused = api.post("/operations", many, Idempotency_Key="k" * 252)
    assert refused.code == "validation_error"
    assert refused.json["errors"][0]["field"] == "Idempotency-Key"
    done = api.post("/operations", many, Idempotency_Key="k" * 251)
    assert {result["status"] for result in done.json["results"]} == {201}
    assert api.balance(wallet) == "1000.00"
