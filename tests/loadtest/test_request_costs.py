"""`make request-costs` measures hostile requests for every endpoint, and marks those beyond the bounds."""

import re
import sys

import pytest
from django.urls import ResolverMatch, resolve

from loadtest import hostile, request_costs
from tests.access.test_rate_limits import Limit, limit, new_ip  # noqa: F401 - a fixture
from tests.support.client import UNKNOWN_ID
from wallets.access.rights import NEEDED
from wallets.pages.urls import urlpatterns as pages

pytestmark = pytest.mark.slow


def route_of(path: str) -> ResolverMatch:
    named = path.replace("{statement}", "/api/v1/wallets/{wallet}/statement").partition("?")[0]
    return resolve(re.sub(r"\{\w+\}", UNKNOWN_ID, named))


def test_every_endpoint_of_the_api_has_a_row() -> None:
    rows = {endpoint.name for endpoint in hostile.API}
    assert rows == {f"{view} {method}" for view, methods in NEEDED.items() for method in methods}
    for endpoint in hostile.API:
        view, method = endpoint.name.split()
        for request in endpoint.requests:
            assert request.method == method
            assert getattr(route_of(request.path).func, "view_class").__name__ == view  # noqa: B009


def test_every_page_has_a_row() -> None:
    rows = {route_of(endpoint.name).route for endpoint in hostile.PAGES}
    assert {str(page.pattern) for page in pages} <= rows


def test_every_measured_request_is_small() -> None:
    for endpoint in hostile.ENDPOINTS:
        for request in endpoint.requests:
            head = len(request.path) + sum(len(name) + len(value) + 4 for name, value in request.fields)
            assert head + len(request.body) <= hostile.MAX_BYTES, (endpoint.name, request.attack)


def test_costs_are_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["request-costs", "--times", "1", "/static/nope", "/livez"])
    for constant in ("OPERATIONS", "HOLDS", "WALLETS"):
        monkeypatch.setattr(request_costs, constant, 1)
    request_costs.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| /static/nope", "| /livez"]
    missing, probe = (line.split(" | ")[2] for line in lines[2:])
    # The most expensive request differs between runs: for the probe it may be a malformed one.
    assert missing == "404"
    assert probe in ("200", "400")


def test_costs_beyond_the_bounds_are_marked() -> None:
    request = hostile.HostileRequest("any", "/")
    for cpu_ms, answer_bytes, is_marked in ((50, 1_000_000, False), (51, 0, True), (0, 1_000_001, True)):
        cost = request_costs.Cost("/", request, 200, cpu_ms, answer_bytes)
        assert ("beyond" in request_costs.line(cost)) is is_marked
