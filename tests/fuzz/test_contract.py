"""Schemathesis checks the service against its OpenAPI document, without and with API keys.

The tests are a short run of `make fuzz`.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import running_service
from tests.support.client import UNKNOWN_ID, Api
from tests.support.fuzz.budget import MINUTES, SEED
from tests.support.keys import new_key, new_owner, new_person
from tests.support.people import new_wallet, session_key
from wallets.access.rights import ADMIN, SCOPES
from wallets.models import User

CONFIG: Final = Path(__file__).with_name("schemathesis.toml")
WITHOUT_LINKS: Final = ["Examples", "Coverage", "Fuzzing"]
PHASES: Final = [*WITHOUT_LINKS, "Stateful"]


def test_open_service_conforms_to_its_document(tmp_path: Path) -> None:
    api = Api()
    config = with_wallets(*(api.open(deposit="1000", currency="EUR") for _ in range(2)))
    with running_service(API_ACCESS="open", WEBHOOK_TARGETS="any") as address:
        assert_conforms(address, config, tmp_path)


def test_service_with_keys_conforms_and_separates_owners(tmp_path: Path) -> None:
    anna, boris = new_owner(), new_owner()
    config = (
        with_wallets(*(new_wallet(anna, "1000") for _ in range(2)))
        + peers(tmp_path / "users.json", anna=new_owner_key(anna), boris=new_owner_key(boris))
        + key_of_tag(new_key(ADMIN), "webhooks")
    )
    with running_service(API_ACCESS="key", WEBHOOK_TARGETS="any") as address:
        assert_conforms(address, config, tmp_path)


def test_session_requests_conform_to_the_document(service: str, tmp_path: Path) -> None:
    session = f'[auth.openapi.session]\napi_key = "{session_key(new_person())}"\n'
    config = with_wallets(UNKNOWN_ID) + session
    assert_conforms(service, config, tmp_path, WITHOUT_LINKS, "--include-tag", "people")


def with_wallets(*wallet_ids: str) -> str:
    return f"{CONFIG.read_text()}\n[dictionaries.wallets]\nvalues = {json.dumps(wallet_ids)}\n"


def new_owner_key(owner: User) -> str:
    """Create a key that is restricted to the wallets of its owner."""
    scopes = [scope for scope in SCOPES if scope != ADMIN]
    return new_key(*scopes, owner=owner, is_restricted=True)


def peers(file: Path, **keys: str) -> str:
    """Write the keys whose owners must not see each other's wallets; the first key sends the requests."""
    users = [
        {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {key}"}]}
        for name, key in keys.items()
    ]
    file.write_text(json.dumps({"auth": users}))
    first, *_ = names = list(keys)
    return f'\n[auth.wfc]\npath = "{file}"\nuser = "{first}"\npeers = {json.dumps(names)}\n'


def key_of_tag(key: str, tag: str) -> str:
    """Configure the key of the operations with this tag."""
    return f'\n[[operations]]\ninclude-tag = "{tag}"\nheaders = {{ Authorization = "Bearer {key}" }}\n'


def assert_conforms(
    address: str, config: str, folder: Path, phases: list[str] = PHASES, *options: str
) -> None:
    """Run Schemathesis. Its output names each failure and the request that reproduces it."""
    file = folder / "schemathesis.toml"
    file.write_text(config)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(file), "--no-color", "run"]
    long = ["--max-time", str(MINUTES * 60)] if MINUTES else []
    chosen = ["--phases", ",".join(phases).lower(), "--checks", "all", "--seed", SEED]
    done = subprocess.run(
        [*command, f"{address}/api/schema", *chosen, *long, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"SEED={SEED}\n{done.stdout}{done.stderr}", pytrace=False)
    assert re.findall(r"✅  (Examples|Coverage|Fuzzing|Stateful)", done.stdout) == phases, done.stdout
