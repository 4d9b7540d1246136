"""The README of the Python client shows code that works."""

import re
import tomllib
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks

from local import ROOT
from tests.support.client import Api
from tests.support.keys import new_key
from wallets.access.rights import ADMIN
from wallets.events import webhooks

FOLDER = ROOT / "clients" / "python"
README = (FOLDER / "README.md").read_text()
GUIDE = (ROOT / "docs" / "integrate.md").read_text()
URL, KEY = '"https://wallets.example.com"', '"wk_..."'


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def run(block: str, service: str, key: str, names: dict[str, Any]) -> None:
    exec(block.replace(URL, repr(service)).replace(KEY, repr(key)), names)  # noqa: S102


def test_readme_installs_this_package() -> None:
    name = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]["name"]
    assert blocks("sh") == [f"pip install {name}\n"]


def test_code_of_the_readme_works(service: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "readme"}
    key, code = new_key(ADMIN), blocks("python")
    assert len(code) >= 8
    for block in code:
        run(block, service, key, names)
    shown = capsys.readouterr().out
    assert shown.startswith("64.40 20.00\n")
    assert "insufficient_funds 60.00\n" in shown
    assert "At most 60.00 can be withdrawn.\n" in shown
    for client in (names["client"], names["patient"]):
        client.close()
    receives_webhook(names["receive"], capsys)


def receives_webhook(receive: Any, capsys: pytest.CaptureFixture[str]) -> None:
    secret, now = webhooks.new_secret(), datetime.now(UTC)
    data = '{"walletId": "w1", "balance": "1.00"}'
    event = '{"id": "e1", "type": "wallet.balance.changed", "source": "walletsvc", "time": '
    body = f'{event}"2026-11-21T09:30:00.000000Z", "data": {data}}}'
    signature = standardwebhooks.Webhook(secret).sign("m1", now, body)
    timestamp = str(int(now.timestamp()))
    headers = {"Webhook-Id": "m1", "Webhook-Timestamp": timestamp, "Webhook-Signature": signature}
    assert receive(body.encode(), headers, secret) == 204
    assert capsys.readouterr().out == "e1 w1 1.00\n"
    assert receive(body.encode() + b" ", headers, secret) == 401


def test_code_of_the_guide_works(service: str, api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("python", GUIDE)
    run(block, service, new_key(ADMIN), {"wallet_id": api.open("15.59")})
    assert capsys.readouterr().out == "At most 15.59 can be withdrawn.\n"
