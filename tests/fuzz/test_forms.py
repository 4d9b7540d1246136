"""Forms with random values are answered with a page, never with a server error."""

from collections.abc import Iterator

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fuzz.budget import examples
from tests.support.fuzz.strategies import texts
from tests.support.people import MODEL_BACKEND, Person, new_account
from wallets.access.passwords import Hasher

FIELDS = {
    "/signup": ["name", "email", "password"],
    "/login": ["username", "password", "next"],
    "/password/forgotten": ["email"],
    "/language": ["language", "next"],
    "/password": ["old_password", "new_password1", "new_password2"],
    "/wallets/{}/transfer": ["to", "amount", "description", "key", "step"],
    "/admin/login/": ["username", "password", "next"],
}
FILLED_IN = [
    "anna@example.com",
    "send",
    "review",
    "1.00",
    "1",
    "ru",
    "/",
    "//example.com",
    "Anna",
    "x" * 300,
    "1 0,5",
]


@pytest.fixture(scope="module")
def anna() -> Iterator[Person]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Hasher, "iterations", 1)
        yield new_account(deposit="100")


@pytest.mark.parametrize("path", FIELDS)
def test_random_form_values_cause_no_server_error(anna: Person, path: str) -> None:
    person = Client(raise_request_exception=False)
    person.force_login(anna.user, backend=MODEL_BACKEND)

    @examples(50)
    @given(
        st.dictionaries(
            st.sampled_from(FIELDS[path]),
            st.sampled_from(FILLED_IN) | texts.map(lambda text: text.encode("utf-8", "replace").decode()),
        )
    )
    def is_answered(fields: dict[str, str]) -> None:
        for client in (person, Client(raise_request_exception=False)):
            assert client.post(path.format(anna.wallet_id), fields).status_code < 500

    is_answered()
