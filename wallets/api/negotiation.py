"""Chooses the media type of a response by Accept (RFC 9110, 12.5.1)."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from django.http.request import MediaType
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from wallets.contract.parsing import items_of
from wallets.problems import NotAcceptable

ANY: Final = "*/*"


class ByAccept(BaseContentNegotiation):
    """Chooses the renderer (DEFAULT_CONTENT_NEGOTIATION_CLASS). REST framework's own ignores the weights."""

    def select_parser(self, request: Request, parsers: Any) -> BaseParser:
        raise AssertionError("wallets/contract/parsing.py reads the bodies")

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        offered = {renderer.media_type: renderer for renderer in renderers}
        media_type = media_type_for(request, list(offered))
        return offered[media_type], media_type


def media_type_for(request: Request, offered: Sequence[str]) -> str:
    """Return the media type that the client prefers; the first one if it has no preference.

    Parameters of a media range, such as a charset, are ignored: each type has one form, in UTF-8.

    Raises NotAcceptable.
    """
    ranges = [MediaType(item) for item in items_of(request.META.get("HTTP_ACCEPT") or ANY)]
    preferences = {media_type: _preference(media_type, ranges) for media_type in offered}
    preferred = max(offered, key=lambda media_type: preferences[media_type])
    if not preferences[preferred].weight:
        raise NotAcceptable(f"Send Accept with {' or '.join(offered)}, or no Accept header.")
    return preferred


class _Preference(NamedTuple):
    """How much a client prefers a media type; of equal weights, the more specific and earlier range wins."""

    weight: float
    specificity: int = 0
    place: int = 0


def _preference(media_type: str, ranges: Sequence[MediaType]) -> _Preference:
    """Return the preference by the most specific range that includes the media type."""
    main_type, _, sub_type = media_type.partition("/")
    specificities = {(main_type, sub_type): 2, (main_type, "*"): 1, ("*", "*"): 0}
    found = [
        (specificity, -place, range_.quality)
        for place, range_ in enumerate(ranges)
        if (specificity := specificities.get((range_.main_type, range_.sub_type))) is not None
    ]
    if not found:
        return _Preference(0)
    specificity, place, weight = max(found)
    return _Preference(weight, specificity, place)
