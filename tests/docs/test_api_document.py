"""docs/api.md lists the refusals of every request in the order of the checks."""

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
from wallets import problems
from wallets.access import rights
from wallets.api import urls
from wallets.ledger import rules

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGE = (ROOT / "docs" / "api.md").read_text()
WITHOUT_REFUSALS = {"POST /logout", "GET /me"}  # without own refusals
DECISION = problems.RejectedByOperator  # the reason of an operation; no response has this code
EVERYWHERE = {"bad_request", "not_found", "method_not_allowed", "internal_error"}  # not specific to a request

Refusal = tuple[str, int]


def rows_of(text: str) -> list[Refusal]:
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
ANY_REQUEST, ANY_BODY, ANY_TIME = (
    rows_of(table) for table in re.findall(r"\| code \|.*\n(?:\|.*\n)+", PAGE[: PAGE.index("\n### ")])
)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Return the operations of the OpenAPI document by request, such as GET /wallets/{id}."""
    paths = Api().sender.send("GET", "/api/schema?format=json").json["paths"]
    return {
        f"{method.upper()} {re.sub(r'{.*?}', '{id}', path.removeprefix('/api/v1'))}": operation
        for path, item in paths.items()
        for method, operation in item.items()
    }


def common_refusals(operation: dict[str, Any]) -> list[Refusal]:
    """Return the refusals common to all requests; a public request needs no authentication."""
    is_public = "security" not in operation
    return [row for row in ANY_REQUEST if not is_public or row[1] not in (401, 403)]


def test_every_request_has_one_section_with_a_table(document: dict[str, Any]) -> None:
    named = [request for heading, _ in HEADINGS for request in requests_of(heading)]
    assert sorted(named) == sorted(document)
    assert {line for line, rows in SECTIONS.items() if not rows} == WITHOUT_REFUSALS


@pytest.mark.parametrize("request_line", SECTIONS)
def test_page_and_document_list_the_same_refusals_in_order(
    document: dict[str, Any], request_line: str
) -> None:
    operation = document[request_line]
    met = [
        *common_refusals(operation),
        *(ANY_BODY if "requestBody" in operation else []),
        *SECTIONS[request_line],
        *ANY_TIME,
    ]
    ours = [row for row in dict.fromkeys(met) if row[0] not in EVERYWHERE]
    for status, answer in operation["responses"].items():
        content = answer.get("content", {}).get(problems.CONTENT_TYPE)
        listed = [example["value"]["code"] for example in content["examples"].values()] if content else []
        assert listed == [code for code, of_code in ours if of_code == int(status)], status
    assert {str(status) for _, status in ours} <= operation["responses"].keys()


def test_page_lists_every_problem_with_its_status() -> None:
    shown = {*ANY_REQUEST, *ANY_BODY, *ANY_TIME, *(row for rows in SECTIONS.values() for row in rows)}
    kinds = problems.Problem.__subclasses__()
    answers = [kind for kind in kinds if kind is not DECISION]
    # An atomic bulk with a refused item is answered with 409.
    assert {(kind.code, kind.status) for kind in answers} <= shown
    assert {code for code, _ in shown} == {kind.code for kind in answers}
    assert f"`{DECISION.code}`" in PAGE


def test_page_names_the_scopes_of_every_request() -> None:
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
def test_every_test_named_by_a_page_exists(page: Path) -> None:
    named = re.findall(r"`(?:tests/)?((?:\w+/)*test_\w+\.py)(?:::(test_\w+))?", page.read_text())
    missing = [
        (file, test)
        for file, test in named
        if not any(f"def {test}" in found.read_text() for found in (ROOT / "tests").rglob(file))
    ]
    assert missing == []


# --- The order of the rules -------------------------------------------------------------------------
def codes_of_rules() -> list[str]:
    """Return the codes of the table in rules.py, in its order."""
    lines = re.findall(r"^ *\d+\. .* {2,}(\w+)(?: \(not recorded\))?$", str(rules.__doc__), re.MULTILINE)
    return [getattr(problems, name).code for name in lines]


@pytest.mark.parametrize("request_line", KEYED)
def test_refusals_after_the_key_are_in_the_order_of_the_rules(request_line: str) -> None:
    codes = [code for code, _ in SECTIONS[request_line]]
    after_key = codes[
        len(codes) - codes[::-1].index("idempotency_key_reused") :
    ]  # in a bulk, the key of an item
    own = [code for code in after_key if code != "wallet_not_found"]
    order = iter(codes_of_rules())
    assert [code for code in own if code not in order] == []  # `in` continues after the previous code


def test_whole_table_of_the_rules_is_parsed() -> None:
    assert len(codes_of_rules()) == len(re.findall(r"^ *\d+\. ", str(rules.__doc__), re.MULTILINE)) > 10
    assert set(problems.REJECTIONS) - {DECISION.code} | {"validation_error"} == set(codes_of_rules())


# --- The order of the checks before the rules -------------------------------------------------------
@dataclass
class InvalidRequest:
    """A request with every fault, which the test corrects one by one."""

    method: str
    address: str
    valid: bytes | None
    settings: LazySettings
    has_more_to_allow: bool = False  # whether the content of the body can be forbidden
    query: str = "?unknown=1"
    is_allowed: bool = False

    def __post_init__(self) -> None:
        self.headers = {"Accept": "text/html", "Content-Type": "text/plain"}
        self.content = b" " * (settings.MAX_BODY_BYTES + 1) if self.valid is not None else None
        self.settings.API_ACCESS = "key"
        # The first key has no scope for this request, the second lacks the right for its body.
        unrelated_key = new_key(rights.READ if self.method != "GET" else rights.HOLD)
        self.is_for_people = self.address in ("/me", "/me/wallet", "/logout")
        restricted_key = new_key(rights.WRITE, rights.WITHDRAW, owner=new_owner(), is_restricted=True)
        self.keys = [unrelated_key, restricted_key] if self.has_more_to_allow else [unrelated_key]

    def send(self, api: Api) -> Answer:
        if self.is_allowed and self.is_for_people:
            del self.headers["Authorization"]
            assert isinstance(api.sender, InProcess)
            api.sender.client.force_login(new_owner())
        headers = dict(self.headers)
        if self.content is None:
            del headers["Content-Type"]
        return api.sender.send(self.method, f"/api/v1{self.address}{self.query}", self.content, headers)


def correct_accept(request: InvalidRequest) -> None:
    request.headers["Accept"] = "*/*"


def authenticate(request: InvalidRequest) -> None:
    request.headers["Authorization"] = f"Bearer {request.keys.pop(0)}"


def authorize(request: InvalidRequest) -> None:
    request.is_allowed = not request.keys
    key = request.keys.pop(0) if request.keys else new_key(rights.ADMIN)
    request.headers["Authorization"] = f"Bearer {key}"


def correct_content_type(request: InvalidRequest) -> None:
    request.headers["Content-Type"] = JSON


def shorten_body(request: InvalidRequest) -> None:
    request.content = b"{"


def correct_json(request: InvalidRequest) -> None:
    request.content = b'{"unknown": 1}'


def correct_body(request: InvalidRequest) -> None:
    request.content, request.query = request.valid, ""


CORRECTIONS: dict[str, Callable[[InvalidRequest], None]] = {
    "not_acceptable": correct_accept,
    "unauthorized": authenticate,
    "forbidden": authorize,
    "unsupported_media_type": correct_content_type,
    "payload_too_large": shorten_body,
    "malformed_json": correct_json,
    "validation_error": correct_body,
}


@pytest.mark.parametrize("request_line", SECTIONS)
def test_first_failed_check_is_the_response(
    api: Api, document: dict[str, Any], settings: LazySettings, request_line: str
) -> None:
    """Start with every fault and correct one at a time, until only the named object does not exist."""
    method, _, path = request_line.partition(" ")
    body = document[request_line].get("requestBody")
    examples = body["content"][JSON]["examples"].values() if body else []
    valid = next((json.dumps(example["value"]).encode() for example in examples), None)
    may_forbid = ("forbidden", 403) in SECTIONS[request_line]
    request = InvalidRequest(method, path.replace("{id}", str(uuid4())), valid, settings, may_forbid)
    met = [
        *common_refusals(document[request_line]),
        *(ANY_BODY if valid is not None else []),
        *SECTIONS[request_line],
    ]
    for code, status in met:
        if code in EVERYWHERE or code == "too_many_requests":
            continue
        if code not in CORRECTIONS and not code.endswith("_not_found"):
            break
        if (
            code == "validation_error" and not request.query
        ):  # the body is valid by now; this is a later check
            break
        answer = request.send(api)
        if code.endswith("_not_found") and answer.status == 200:  # the result of a bulk item
            break
        assert (answer.code, answer.status) == (code, status)
        if code.endswith("_not_found"):
            break
        CORRECTIONS[code](request)


# --- Examples ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
@pytest.mark.slow
def test_examples_of_the_page_succeed(live_api: Api, service: str, command: str) -> None:
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
    assert answer.keys() & {"id", "results", "balance", "walletId"}


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
