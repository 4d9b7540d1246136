"""The health probes."""

import pytest
from django.db import OperationalError, connection

from tests.support.client import Api
from wallets import health
from wallets.schema import EXPECTED_TAG


def test_livez_needs_no_database(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "cursor", None)
    assert api.sender.send("GET", "/livez").status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probe_accepts_any_host(api: Api, path: str) -> None:
    assert api.sender.send("GET", path, headers={"Host": "10.1.2.3:8000"}).status == 200


def test_readyz_accepts_the_expected_schema(api: Api) -> None:
    answer = api.sender.send("GET", "/readyz")
    assert (answer.status, answer.json) == (200, {"status": "ok", "schema": EXPECTED_TAG})


def test_readyz_accepts_a_newer_schema(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """During an upgrade, old processes serve with the new schema."""
    monkeypatch.setattr(health, "schema_tags", lambda: ["v1", EXPECTED_TAG, "v999"])
    answer = api.sender.send("GET", "/readyz")
    assert (answer.status, answer.json) == (200, {"status": "ok", "schema": EXPECTED_TAG})


@pytest.mark.parametrize("tags", [["v0"], []], ids=["v0", "none"])
def test_readyz_fails_with_an_older_schema(
    api: Api, monkeypatch: pytest.MonkeyPatch, tags: list[str]
) -> None:
    monkeypatch.setattr(health, "schema_tags", lambda: tags)
    answer = api.sender.send("GET", "/readyz")
    assert (answer.status, answer.code) == (503, "unavailable")
    assert f"at {tags[0] if tags else None}," in answer.json["detail"]


def test_readyz_fails_without_the_database(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[str]:
        raise OperationalError("no route")

    monkeypatch.setattr(health, "schema_tags", fail)
    answer = api.sender.send("GET", "/readyz")
    assert (answer.status, answer.code) == (503, "unavailable")
