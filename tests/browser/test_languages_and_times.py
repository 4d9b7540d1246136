"""Pages use the language and the time zone of the browser."""

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import NewPerson, Payee
from tests.support.client import Api


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_times_are_in_the_time_zone_of_the_browser(owner: NewPerson, bank: Api, zone: str) -> None:
    anna = owner("100.00", timezone_id=zone)
    created_at = datetime.fromisoformat(bank.history(anna.wallet_id)[0]["createdAt"])
    local = created_at.astimezone(ZoneInfo(zone))
    time = anna.history.first.locator("time")
    expect(time).to_have_text(f"{local:%b} {local.day}, {local:%Y}, {local.hour % 12 or 12}:{local:%M %p}")
    expect(time).to_have_attribute("title", re.compile("UTC$"))


def test_days_of_the_history_are_the_readers(owner: NewPerson, bank: Api) -> None:
    zone = "Pacific/Kiritimati"  # where it is already tomorrow for most others
    anna = owner("100.00", timezone_id=zone)
    made = datetime.fromisoformat(bank.history(anna.wallet_id)[0]["createdAt"])
    expect(anna.page.get_by_label("Time zone")).to_have_value(zone)
    anna.page.get_by_label("From").fill(made.astimezone(ZoneInfo(zone)).date().isoformat())
    expect(anna.page).to_have_url(re.compile("zone=Pacific%2FKiritimati"))
    expect(anna.history).to_have_count(1)
    anna.page.get_by_label("Time zone").fill("Etc/GMT+12")
    anna.page.get_by_label("Time zone").press("Enter")
    expect(anna.page.get_by_text("No operations.")).to_be_visible()


def test_refreshed_times_are_in_the_time_zone_of_the_browser(owner: NewPerson, bank: Api) -> None:
    anna = owner(timezone_id="Asia/Tokyo")
    anna.go_home_with_fake_clock()
    bank.deposit(anna.wallet_id, "1")
    anna.let_time_pass()
    expect(anna.history).to_have_count(1)
    expect(anna.history.first.locator("time")).to_have_text(re.compile(r", \d+:\d\d [AP]M$"))


def test_pages_are_russian_in_a_russian_browser(owner: NewPerson, boris: Payee, bank: Api) -> None:
    anna = owner("1175.25", locale="ru-RU")
    expect(anna.page.locator("html")).to_have_attribute("lang", "ru")
    expect(anna.available).to_have_text("1 175,25 RUB")
    expect(anna.page.get_by_label("Кому")).to_be_visible()
    expect(anna.page.get_by_role("button", name="Выйти")).to_be_visible()
    expect(anna.history).to_contain_text(["Пополнение +1 175,25 RUB"])

    anna.ask_to_send(boris.email, "1 000,25", "За билеты")
    expect(anna.heading).to_have_text("Отправить?")
    expect(anna.page.get_by_text("1 000,25 RUB")).to_be_visible()
    anna.confirm()
    expect(anna.heading).to_have_text("Отправлено")
    assert bank.balance(anna.wallet_id) == "175.00"


def test_refusal_is_in_the_language_of_the_browser(owner: NewPerson, boris: Payee) -> None:
    anna = owner("100.00", locale="ru-RU")
    anna.ask_to_send(boris.email, "100,01")
    anna.sees_error("amount", "Недостаточно средств. Деньги не переведены.")


def test_chosen_language_is_kept(owner: NewPerson) -> None:
    anna = owner("1175.25")
    anna.page.get_by_role("button", name="Русский").click()
    expect(anna.page.get_by_role("heading", name="История")).to_be_visible()
    expect(anna.available).to_have_text("1 175,25 RUB")
    anna.page.goto("/password")
    expect(anna.heading).to_have_text("Изменить пароль")
    anna.page.get_by_role("button", name="Выйти").click()
    expect(anna.heading).to_have_text("Войти")
    anna.page.get_by_role("button", name="English").click()
    expect(anna.heading).to_have_text("Log in")
    anna.page.goto("/signup")
    expect(anna.heading).to_have_text("Sign up")


@pytest.mark.parametrize("locale", ["en-US", "ru-RU"])
def test_language_buttons_have_native_names(visitor: NewPerson, locale: str) -> None:
    anna = visitor(locale=locale)
    anna.go_home()
    expect(anna.page.locator(".language button")).to_have_text(["English", "Русский"])
