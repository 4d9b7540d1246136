"""A test fails if the browser reports an error, which these tests cause."""

import pytest

from tests.browser.conftest import NewPerson

INLINE_STYLE = "document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">…</p>')"
INLINE_SCRIPT = (
    "document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))"
)
OTHER_HOST = "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.2:1/picture.png'}))"
SCRIPT_ERROR = "setTimeout(() => nothing.here)"


@pytest.mark.parametrize("script", [INLINE_STYLE, INLINE_SCRIPT, OTHER_HOST, SCRIPT_ERROR])
def test_browser_error_fails_the_test(visitor: NewPerson, script: str) -> None:
    anna = visitor()
    anna.go_home()
    with anna.context.expect_event("weberror" if script == SCRIPT_ERROR else "console"):
        anna.page.evaluate(script)
    with pytest.raises(AssertionError):
        anna.leave()
    anna.browser_errors.clear()


def test_unexpected_refusal_fails_the_test(visitor: NewPerson) -> None:
    anna = visitor()
    anna.page.goto("/nothing/here")
    with pytest.raises(AssertionError, match="404"):
        anna.leave()
    anna.refusals.clear()
