"""The other tests fail where the browser complains; here it is made to."""

import pytest

from tests.browser.conftest import Someone

INLINE_STYLE = "document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">…</p>')"
INLINE_SCRIPT = (
    "document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))"
)
ELSEWHERE = "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.2:1/picture.png'}))"
MISTAKE = "setTimeout(() => nothing.here)"


@pytest.mark.parametrize("script", [INLINE_STYLE, INLINE_SCRIPT, ELSEWHERE, MISTAKE])
def test_what_the_browser_complains_of_fails_the_test(visitor: Someone, script: str) -> None:
    anna = visitor()
    anna.go_home()
    with anna.context.expect_event("weberror" if script == MISTAKE else "console"):
        anna.page.evaluate(script)
    with pytest.raises(AssertionError):
        anna.leave()
    anna.complaints.clear()


def test_unexpected_refusal_fails_the_test(visitor: Someone) -> None:
    anna = visitor()
    anna.page.goto("/nothing/here")
    with pytest.raises(AssertionError, match="404"):
        anna.leave()
    anna.refusals.clear()
