"""The history of a wallet: filters, pages and the statement."""

import csv
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import NewPerson
from tests.support.browser.person import Person
from tests.support.client import Api


def deposit_often(bank: Api, person: Person, times: int) -> None:
    """Make deposits of 1.00, 2.00 and so on."""
    steps = [
        {
            "operationType": "DEPOSIT",
            "walletId": person.wallet_id,
            "amount": number + 1,
            "description": f"№{number + 1}",
        }
        for number in range(times)
    ]
    assert bank.bulk(*steps, atomic=True).status == 200


def test_kind_filter_changes_table_and_url(owner: NewPerson, bank: Api) -> None:
    anna = owner("100.00")
    bank.withdraw(anna.wallet_id, "1.50")
    anna.go_home()
    anna.page.evaluate("window.isSamePage = true")
    anna.page.get_by_label("Kind").select_option("Withdrawal")
    expect(anna.history).to_have_count(1)
    expect(anna.history).to_contain_text(["Withdrawal −1.50 RUB 98.50 RUB"])
    expect(anna.page).to_have_url(re.compile("kind=WITHDRAW"))
    assert anna.page.evaluate("window.isSamePage")
    anna.page.reload()  # the URL contains the filter
    expect(anna.history).to_have_count(1)
    expect(anna.page.get_by_label("Kind")).to_have_value("WITHDRAW")


def test_back_restores_the_table_and_the_scripts(owner: NewPerson, bank: Api) -> None:
    anna = owner("100.00")
    bank.withdraw(anna.wallet_id, "1.50")
    anna.go_home()
    expect(anna.history).to_have_count(2)
    anna.page.get_by_label("Kind").select_option("Withdrawal")
    expect(anna.history).to_have_count(1)
    anna.page.go_back()
    expect(anna.history).to_have_count(2)
    expect(anna.page.get_by_label("Kind")).to_have_value("")
    expect(anna.page.locator("[data-copy]")).to_be_visible()
    expect(anna.history.first.locator("time")).not_to_contain_text("UTC")


def test_date_filters_change_table_and_url(owner: NewPerson) -> None:
    anna = owner("100.00")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    anna.page.get_by_label("From").fill(tomorrow)
    expect(anna.page.get_by_text("No operations.")).to_be_visible()
    expect(anna.page).to_have_url(re.compile(f"since={tomorrow}"))
    anna.page.get_by_label("From").fill("")
    expect(anna.history).to_have_count(1)
    anna.page.locator("[name=until]").fill("2020-01-31")
    expect(anna.history).to_have_count(0)
    expect(anna.page).to_have_url(re.compile("until=2020-01-31"))


def test_older_and_newest_page_through_all_operations(owner: NewPerson, bank: Api) -> None:
    anna = owner()
    deposit_often(bank, anna, 45)
    anna.go_home()
    seen: list[str] = []
    for rows in (20, 20, 5):
        expect(anna.history).to_have_count(rows)
        seen += anna.history.locator(".note").all_inner_texts()
        if rows == 20:
            expect(anna.history.first).to_contain_text(seen[-20])
            anna.page.get_by_role("link", name="Older").click()
            expect(anna.history.first).to_contain_text(f"№{45 - len(seen)}")
    assert seen == [f"№{number}" for number in range(45, 0, -1)]
    expect(anna.page.get_by_role("link", name="Older")).to_have_count(0)
    anna.page.get_by_role("link", name="Newest").click()
    expect(anna.history.first).to_contain_text("№45")


def test_kind_filter_applies_to_older_pages(owner: NewPerson, bank: Api) -> None:
    anna = owner()
    deposit_often(bank, anna, 21)
    bank.withdraw(anna.wallet_id, "1")
    anna.page.goto("/?kind=DEPOSIT")
    expect(anna.history).to_have_count(20)
    anna.page.get_by_role("link", name="Older").click()
    expect(anna.history).to_have_count(1)
    expect(anna.history).to_contain_text(["Deposit №1 +1.00 RUB"])


def test_statement_ends_with_the_balance(owner: NewPerson, bank: Api, tmp_path: Path) -> None:
    anna = owner()
    deposit_often(bank, anna, 25)
    bank.withdraw(anna.wallet_id, "0.75", description="=SUM(A1)")
    anna.go_home()
    with anna.page.expect_download() as download:
        anna.page.get_by_role("link", name="Statement as CSV").click()
    assert re.fullmatch(r"statement-[0-9-]{10}-[0-9-]{10}\.csv", download.value.suggested_filename)
    file = tmp_path / "statement.csv"
    download.value.save_as(file)
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert len(rows) == 1 + 26 + 1
    assert rows[-1]["operationType"] == "CLOSING_BALANCE"
    assert rows[-1]["balance"] == bank.balance(anna.wallet_id) == "324.25"
