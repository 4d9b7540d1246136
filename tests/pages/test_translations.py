"""Every text of the pages has a Russian translation with the same placeholders."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from django.conf import settings
from django.utils import translation
from django.utils.translation import template

from wallets import problems
from wallets.api.openapi import TRANSFER_RULES
from wallets.models import Wallet
from wallets.pages.labels import REFUSALS, STATUSES, problem_text
from wallets.problems import REJECTIONS, Problem

WALLETS: Final = Path(settings.BASE_DIR) / "wallets"
FOLDER: Final = WALLETS / "locale" / "ru" / "LC_MESSAGES"
WITHOUT_CONTEXT: Final = {"_", "gettext", "gettext_lazy", "gettext_noop"}
WITH_CONTEXT: Final = {"pgettext", "pgettext_lazy"}
PLURAL: Final = {"ngettext", "ngettext_lazy", "npgettext", "npgettext_lazy"}
PLACEHOLDER: Final = re.compile(r"%\(\w+\)[sd]|%[sd%]|\{\w*\}")

Text = tuple[str | None, str]  # context or None, and the English text


def calls_in(source: str) -> Iterator[Text]:
    """Yield the texts that are marked for translation in Python source."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        assert name not in PLURAL, "this test does not support plurals"
        if name in WITHOUT_CONTEXT | WITH_CONTEXT:
            arguments = [ast.literal_eval(argument) for argument in node.args]
            yield (arguments[0], arguments[1]) if name in WITH_CONTEXT else (None, arguments[0])


def marked() -> Iterator[Text]:
    files = (path for folder in ("pages", "templatetags") for path in (WALLETS / folder).glob("*.py"))
    for path in (WALLETS / "operation_types.py", *files):
        yield from calls_in(path.read_text())
    for path in templates():
        yield from calls_in_template(path)


def templates() -> list[Path]:
    return list((WALLETS / "templates" / "pages").rglob("*.*"))


def calls_in_template(path: Path) -> Iterator[Text]:
    """Yield the texts of a template, which Django converts into Python calls for makemessages."""
    source = template.templatize(path.read_text(), origin=str(path))
    text = r"(?:[^()'\"]|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\")*"
    for call in re.findall(rf"p?gettext\({text}\)", source):
        yield from calls_in(re.sub(r"(?<=[( ])u(?=['\"])", "", call))


MARKED: Final = sorted(set(marked()), key=str)


def catalog() -> Catalog:
    with (FOLDER / "django.po").open("rb") as file:
        return read_po(file, locale="ru")


def translations(of: Catalog) -> dict[Text, Message]:
    return {(message.context, str(message.id)): message for message in of if message.id}


def as_text(context: str | bytes | None) -> str | None:
    return context.decode() if isinstance(context, bytes) else context


def test_texts_are_found_in_all_sources() -> None:
    for text in (
        (None, "Your name"),  # gettext_lazy
        ("date", "From"),  # pgettext_lazy
        ("operation", "Reversal"),  # of a type of operations
        (None, "Your password has been changed. Log in with it."),  # gettext
        (None, "Send money"),  # {% translate %}
        (None, "Copied"),  # {% translate %} in an attribute
        (None, "You have %(amount)s available."),  # {% blocktranslate %}
        (None, "Hello,"),  # in mail
        (None, "A new password for your wallet"),
    ):
        assert text in MARKED


@pytest.mark.parametrize("path", templates(), ids=lambda path: path.name)
def test_every_translation_tag_of_a_template_is_found(path: Path) -> None:
    tags = re.findall(r"{% *(?:block)?trans(?:late)? ", path.read_text())
    assert len(list(calls_in_template(path))) == len(tags)


@pytest.mark.parametrize("text", MARKED, ids=str)
def test_every_text_has_a_translation(text: Text) -> None:
    message = translations(catalog()).get(text)
    assert message is not None, "make messages"
    assert message.string
    assert not message.fuzzy
    assert re.search("[а-яё]", str(message.string), re.IGNORECASE)
    assert sorted(PLACEHOLDER.findall(str(message.string))) == sorted(PLACEHOLDER.findall(text[1]))


def test_catalog_has_no_unused_text() -> None:
    assert sorted(set(translations(catalog())) - set(MARKED), key=str) == []
    assert not catalog().obsolete


def test_compiled_catalog_equals_its_source() -> None:
    with (FOLDER / "django.mo").open("rb") as file:
        compiled = translations(read_mo(file))  # read_mo returns contexts as bytes
    written = translations(catalog())
    assert {(as_text(context), text): message.string for (context, text), message in compiled.items()} == {
        text: message.string for text, message in written.items()
    }


def test_refusals_are_translated_in_russian() -> None:
    with translation.override("ru"):
        for problem in REFUSALS:
            assert re.search("[а-яё]", str(REFUSALS[problem]))
    assert problem_text(problems.WalletNotFound()) == "This wallet does not exist."


# --- Completeness -----------------------------------------------------------------------------------
def refusals_of_a_transfer() -> set[type[Problem]]:
    """Return the problems that a transfer on a page can cause, in the ledger or before it."""
    return {
        *TRANSFER_RULES,
        *(problems.TooManyRequests, problems.Unavailable, problems.IdempotencyKeyReused),
        *(problems.WalletNotFound, problems.Forbidden, problems.NotFound, problems.TransferNotFound),
    }


@pytest.mark.parametrize(
    "problem", sorted(refusals_of_a_transfer(), key=str), ids=lambda problem: problem.code
)
def test_every_refusal_of_a_transfer_has_a_text(problem: type[Problem]) -> None:
    assert problem_text(problem()) == str(REFUSALS[problem.code])


def test_every_refusal_text_has_a_problem() -> None:
    codes = {
        kind.code for kind in vars(problems).values() if isinstance(kind, type) and hasattr(kind, "code")
    }
    assert set(REFUSALS) <= codes
    assert {problem.code for problem in TRANSFER_RULES} <= set(REJECTIONS)


def test_every_status_of_a_wallet_has_a_text() -> None:
    assert set(STATUSES) == set(Wallet.Status)
