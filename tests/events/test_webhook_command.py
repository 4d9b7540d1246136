"""manage.py webhooks: output, effects, and one line with exit code 2 for invalid input."""

import subprocess
import sys
from io import StringIO
from uuid import uuid4

import pytest
from django.conf import LazySettings
from django.core.management import CommandError, call_command

from tests.support.client import UNKNOWN_ID
from tests.support.receivers import fail, receiver
from wallets.events import delivery_state, webhook_registry
from wallets.models import ParkedEvent, Subscriber

URL = "https://shop.example.com/events"

pytestmark = pytest.mark.usefixtures("no_subscribers")


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("webhooks", *arguments, stdout=output)
    return output.getvalue().strip()


def refused(*arguments: str, code: int = 2) -> str:
    with pytest.raises(CommandError) as error:
        run(*arguments)
    # Errors of the argument parser have an exit code only in a process of their own (below).
    assert str(error.value).startswith("Error: ") or error.value.returncode == code
    return str(error.value)


def stored() -> Subscriber:
    return webhook_registry.webhooks().get()


def test_add_prints_the_secret_once() -> None:
    id, secret = run(
        "add", "till 1", URL, "--type", "wallet.opened", "wallet.changed", "--batch", "20"
    ).split()
    webhook = stored()
    assert (str(webhook.id), webhook.secret) == (id, secret)
    assert (webhook.name, webhook.url, webhook.batch) == ("till 1", URL, 20)
    assert webhook.types == ["wallet.opened", "wallet.changed"]
    assert int(webhook.begin_xid) > 0
    listed = run("list")
    for text in (id, "till 1", URL, "wallet.opened, wallet.changed", "lag 0.0 s", "0 parked wallets"):
        assert text in listed
    assert secret not in listed


def test_add_with_an_id_is_idempotent() -> None:
    arguments = ("add", "shop", URL, "--id", str(uuid4()), "--from-beginning")
    assert run(*arguments) == run(*arguments)
    assert int(stored().begin_xid) == 0
    run("rotate", "shop")
    assert "rotate it" in refused(*arguments)
    assert "different request" in refused(*arguments[:-1])


@pytest.mark.parametrize(
    ("arguments", "expected_error"),
    [
        (("add", "", URL), "other than spaces"),
        (("add", "x" * 101, URL), "at most 100"),
        (("add", "shop", "http://example.com/"), "https://"),
        (("add", "shop", "https://127.0.0.1/"), "not a public address"),
        (("add", "shop", "https://example.com/\r\n"), "visible ASCII"),
        (("add", "shop", URL, "--type", "everything"), "invalid choice"),
        (("add", "shop", URL, "--batch", "501"), "1 to 500"),
        (("add", "shop", URL, "--id", "x"), "must be a UUID"),
        (("add", "kafka", URL), "has this name"),
        (("add", "shop"), "url"),
        (("resend", "shop"), "invalid choice"),
        ((), "ACTION"),
        (("remove",), "NAME-OR-ID"),
        (("rotate", "shop", "--former-valid-hours", "169"), "0 to 168"),
        (("rotate", "shop", "--former-valid-hours", "x"), "invalid int"),
        *(
            ((action, name), f"no webhook {name}")
            for action in ("remove", "test", "enable")
            for name in ("x", UNKNOWN_ID)
        ),
    ],
    ids=str,
)
def test_wrong_input_is_refused(arguments: tuple[str, ...], expected_error: str) -> None:
    assert expected_error in refused(*arguments)
    assert not Subscriber.objects.exists()


def test_wrong_input_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "webhooks", "add", "shop", "ftp://x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "must begin with https://" in done.stderr


def test_duplicate_name_is_refused() -> None:
    run("add", "shop", URL)
    assert "Another webhook has this name" in refused("add", "shop", URL)


def test_disable_and_enable() -> None:
    run("add", "shop", URL)
    assert run("disable", "shop") == "Disabled shop"
    assert (stored().is_enabled, stored().disabled_because) == (False, "Disabled by command:webhooks.")
    assert "disabled: Disabled by command:webhooks." in run("list")
    assert run("enable", str(stored().id)) == "Enabled shop"
    assert stored().is_enabled


def test_rotate_replaces_the_secret() -> None:
    run("add", "shop", URL)
    former = stored().secret
    secret = run("rotate", "shop")
    assert (stored().secret, stored().former_secret) == (secret, former)
    assert run("rotate", "shop", "--former-valid-hours", "0") == stored().secret != secret
    assert stored().former_secret == ""


def test_test_sends_a_test_event(settings: LazySettings) -> None:
    settings.WEBHOOK_TARGETS = "any"
    with receiver() as shop:
        run("add", "shop", shop.url())
        assert run("test", "shop").startswith("accepted: status 200 after ")
        shop.behave = fail
        assert refused("test", "shop", code=1).startswith("not accepted: answered 500, after ")
        assert [request.events[0]["type"] for request in shop.requests] == ["webhook.test"] * 2


def test_replay_makes_dead_letters_due() -> None:
    run("add", "shop", URL)
    letter = ParkedEvent.objects.create(
        subscriber=stored(), event_id="x", type="wallet.opened", wallet_id=uuid4(), status="DEAD"
    )
    assert "1 dead letters" in run("list")
    assert run("replay", "shop") == "1 dead letters will be sent again"
    letter.refresh_from_db()
    assert letter.status == "WAITING"


def test_forget_deletes_dead_letters() -> None:
    run("add", "shop", URL)
    for id, status in (("x", "DEAD"), ("y", "DEAD"), ("z", "WAITING")):
        ParkedEvent.objects.create(
            subscriber=stored(),
            event_id=id,
            type="wallet.opened",
            wallet_id=uuid4(),
            status=status,
        )
    assert run("forget", "shop") == "deleted 2 dead letters"
    assert run("forget", "shop") == "deleted 0 dead letters"
    assert ParkedEvent.objects.get().event_id == "z"


def test_remove_deletes_the_webhook() -> None:
    run("add", "shop", URL)
    assert run("remove", "shop") == "Removed shop"
    assert not Subscriber.objects.exists()
    assert run("list") == ""


def test_broker_can_only_be_listed_and_switched() -> None:
    broker = delivery_state.broker("rabbitmq")
    assert "the broker" in run("list")
    for action in ("remove", "rotate", "test", "replay", "forget"):
        assert "is the broker, not a webhook" in refused(action, "rabbitmq")
    run("disable", "rabbitmq")
    broker.refresh_from_db()
    assert not broker.is_enabled
    run("enable", "rabbitmq")
    broker.refresh_from_db()
    assert broker.is_enabled
