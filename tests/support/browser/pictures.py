"""Write the screenshots of the documentation: `python -m tests.support.browser.pictures`."""

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from typing import Any, Final, NamedTuple

import django
import psycopg
from django.core.management import call_command
from playwright.sync_api import Browser, ViewportSize, expect

import tests.support.cluster  # starts its own database
from local import ROOT
from local.postgres import SUPERUSER
from tests.support.browser import chromium

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "walletsvc.settings")
django.setup()

from tests.conftest import running_service  # noqa: E402
from tests.support.browser.person import PHONE, Person  # noqa: E402 - these need the settings, and they the database
from tests.support.client import Api, OverHttp  # noqa: E402
from tests.support.keys import new_key, new_operator  # noqa: E402
from wallets.access.rights import ADMIN  # noqa: E402

FOLDER: Final = ROOT / "docs" / "images"
MAX_PICTURE_BYTES: Final = 150_000
DESK: Final = ViewportSize(width=1280, height=1100)
CARD: Final = ViewportSize(width=720, height=440)


class Step(NamedTuple):
    days_ago: float
    kind: str
    amount: str
    english: str
    russian: str


STEPS: Final = (
    Step(62, "DEPOSIT", "96400", "Salary", "Зарплата"),
    Step(61, "WITHDRAW", "38000", "Rent", "Квартира"),
    Step(58, "WITHDRAW", "4215.40", "Groceries", "Продукты"),
    Step(55, "SENT", "1800", "Birthday present for Clara", "Подарок Кларе"),
    Step(51, "WITHDRAW", "2990", "Winter boots", "Зимние ботинки"),
    Step(47, "RECEIVED", "950.50", "Half of the dinner", "Половина ужина"),
    Step(43, "WITHDRAW", "5127.85", "Groceries", "Продукты"),
    Step(38, "SENT", "12500", "Tickets to Kazan", "Билеты в Казань"),
    Step(32, "DEPOSIT", "96400", "Salary", "Зарплата"),
    Step(31, "WITHDRAW", "38000", "Rent", "Квартира"),
    Step(27, "WITHDRAW", "3876.20", "Groceries", "Продукты"),
    Step(24, "RECEIVED", "6250", "My ticket to Kazan", "Мой билет в Казань"),
    Step(20, "WITHDRAW", "18990", "Bicycle", "Велосипед"),
    Step(16, "SENT", "740", "Cinema", "Кино"),
    Step(12, "WITHDRAW", "4402.10", "Groceries", "Продукты"),
    Step(9, "WITHDRAW", "250000", "Piano", "Пианино"),  # refused: exceeds the balance
    Step(6, "RECEIVED", "2100", "For the guitar lessons", "За уроки гитары"),
    Step(2, "DEPOSIT", "96400", "Salary", "Зарплата"),
    Step(1, "WITHDRAW", "38000", "Rent", "Квартира"),
    Step(0.2, "SENT", "1175.25", "Concert on Friday", "Концерт в пятницу"),
)
HELD: Final = "4900"
SHOPS: Final = (
    ("Web shop", "RUB"),
    ("Bakery", "RUB"),
    ("Book shop", "EUR"),
    ("Kiosk at the station", "RUB"),
    ("Flowers", "EUR"),
    ("Cinema", "RUB"),
)


def main() -> None:
    path = chromium.find()
    if path is None:
        sys.exit(chromium.MISSING)
    # The ORM refuses while the browser runs.
    call_command("sync_permissions")
    rights = ("view_operation", "view_wallet", "view_hold", "view_inboxentry")
    key, operator = (
        new_key(ADMIN),
        new_operator(*rights, first_name="Olga", email="olga@example.com").username,
    )
    with running_service(API_ACCESS="key") as address, chromium.running(path) as browser:
        sender = OverHttp(address)
        with closing(sender.connection):
            take_start_page(browser, address, Api(sender, key), operator)
            take_all(browser, address, Api(sender, key))


def take_start_page(browser: Browser, address: str, bank: Api, operator: str) -> None:
    """Take a picture of the operators' start page after a day with six shops."""
    for number, (shop, currency) in enumerate(SHOPS):
        till = bank.open(currency=currency, label=shop, maxBalance="1200000")
        bank.bulk(*[sale(till, number, place) for place in range(400 - 40 * number)])
    let_a_day_pass()
    anna = Person(browser, address, viewport=DESK)
    anna.page.goto("/login")
    anna.log_in(operator)
    anna.page.goto("/admin/")
    expect(anna.page.get_by_role("heading", name="Operations per hour")).to_be_visible()
    save(anna, "admin-start")
    anna.leave()


def sale(till: str, number: int, place: int) -> dict[str, Any]:
    """Return a deposit, a withdrawal, or now and then a withdrawal that is refused."""
    kind, amount = "DEPOSIT", f"{(place * 7919 + number * 613) % 9000 + 200}"
    if place % 7 == 3:
        kind, amount = "WITHDRAW", f"{(place * 104729) % 6000 + 100}"
    if place % 23 == number:
        kind, amount = "WITHDRAW", "9999999"
    return {"operationType": kind, "walletId": till, "amount": amount}


def let_a_day_pass() -> None:
    """Create a day with a quiet night, and a verification of the ledger an hour ago."""
    with psycopg.connect(tests.support.cluster.cluster.url(SUPERUSER)) as connection:
        connection.execute(
            """
            UPDATE operation SET created_at = now() - interval '24 hours' * (1 - place)
            FROM (
                SELECT id, wallet, at - 0.12 * sin(2 * pi() * at) + 0.004 * sin(40 * at) AS place
                FROM (
                    SELECT id, wallet_id AS wallet,
                           percent_rank() OVER (PARTITION BY wallet_id ORDER BY created_at) AS at
                    FROM operation
                ) AS even
            ) AS moved WHERE operation.id = moved.id AND wallet_id = wallet
            """
        )
        connection.execute(
            "INSERT INTO ledger_check (began_at, ended_at, wallets, differences)"
            " SELECT now() - interval '62 min', now() - interval '61 min', count(*), 0 FROM wallet"
        )


def take_all(browser: Browser, address: str, bank: Api) -> None:
    arrive: dict[str, Any] = {"browser": browser, "address": address, "viewport": DESK}
    anna = Person(**arrive, name="Anna Petrova", email="anna@example.com")
    boris = Person(**arrive, name="Boris Ivanov", email="boris@example.com")
    carry_out(bank, anna, boris, [step.english for step in STEPS])
    take(anna, "wallet")
    anna.page.set_viewport_size(PHONE)
    take(anna, "wallet-phone")
    anna.page.set_viewport_size(CARD)
    anna.ask_to_send(boris.email, "1500", "Guitar strings")
    expect(anna.heading).to_have_text("Send this?")
    save(anna, "transfer-review")

    russian: dict[str, Any] = {**arrive, "locale": "ru-RU", "color_scheme": "dark"}
    anna_too = Person(**russian, name="Анна Петрова", email="anna.petrova@example.com")
    boris_too = Person(**russian, name="Борис Иванов", email="boris.ivanov@example.com")
    carry_out(bank, anna_too, boris_too, [step.russian for step in STEPS])
    take(anna_too, "wallet-dark-ru")
    for person in (anna, boris, anna_too, boris_too):
        person.leave()


def carry_out(bank: Api, person: Person, other: Person, notes: Sequence[str]) -> None:
    """Carry out all steps, and move them into the past."""
    for user in (person, other):
        user.open_account()
        verify(user.email)
    bank.deposit(other.wallet_id, "20000")
    for step, note in zip(STEPS, notes, strict=True):
        directions = {"SENT": (person, other), "RECEIVED": (other, person)}
        if direction := directions.get(step.kind):
            source, target = direction
            bank.transfer(source.wallet_id, target.wallet_id, step.amount, description=note)
        else:
            bank.operate(person.wallet_id, step.kind, step.amount, description=note)
    assert len(bank.history(person.wallet_id)) == len(STEPS)
    move_into_the_past(person.wallet_id)
    assert bank.hold(person.wallet_id, HELD).status == 201


def verify(email: str) -> None:
    with psycopg.connect(tests.support.cluster.cluster.url(SUPERUSER)) as connection:
        connection.execute("UPDATE wallet_user SET verified_email = email WHERE email = %s", [email])


def move_into_the_past(wallet_id: str) -> None:
    """Move the operations into the last two months. The service cannot do this: it may not change times."""
    with psycopg.connect(tests.support.cluster.cluster.url(SUPERUSER)) as connection:
        found = connection.execute(
            "SELECT id FROM operation WHERE wallet_id = %s ORDER BY created_at", [wallet_id]
        ).fetchall()
        for number, (step, (operation_id,)) in enumerate(zip(STEPS, found, strict=True)):
            ago = timedelta(days=step.days_ago, minutes=number * 97 % 400)  # at different hours
            connection.execute(
                "UPDATE operation SET created_at = now() - %s WHERE wallet_id = %s AND id = %s",
                [ago, wallet_id, operation_id],
            )
        connection.execute(
            "UPDATE wallet SET created_at = now() - %s WHERE id = %s", [timedelta(days=63), wallet_id]
        )


def take(person: Person, name: str) -> None:
    person.go_home()
    expect(person.history).to_have_count(len(STEPS))
    save(person, name)


def save(person: Person, name: str) -> None:
    path = FOLDER / f"{name}.png"
    person.page.screenshot(path=path)
    assert path.stat().st_size < MAX_PICTURE_BYTES, f"{path} has {path.stat().st_size} bytes"


if __name__ == "__main__":
    try:
        main()
    finally:
        tests.support.cluster.cluster.stop()
