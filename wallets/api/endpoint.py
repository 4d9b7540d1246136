"""What all views have in common. A view makes one call into the ledger and handles only HTTP."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from wallets.access.authentication import principal
from wallets.access.throttles import CallerThrottle
from wallets.api.negotiation import ANY
from wallets.api.renderers import JSONRenderer
from wallets.contract.fields import Schema
from wallets.contract.parsing import request_key
from wallets.database_retry import retry_until_deadline
from wallets.keyed_requests import Keyed, digest_of, record

_RENDERER = JSONRenderer()
_USUAL: Final = (ANY, JSONRenderer.media_type)


class Endpoint(APIView):
    http_method_names = ["get", "head", "post", "patch", "delete"]
    throttle_classes: Sequence[type[BaseThrottle]] = [CallerThrottle]
    # Of a body, before it is parsed (wallets/contract/parsing.py). MAX_BODY_BYTES bounds the length
    # everywhere.
    max_body_bytes = 65_536  # texts and metadata take 20,000 with every character escaped
    max_values = 2_100  # 4,096 bytes of metadata hold fewer

    @property
    def default_response_headers(self) -> dict[str, str]:
        return {}  # DRF would tell every caller which methods are allowed; a 405 does

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        if self.renderer_classes[0] is JSONRenderer and request.META.get("HTTP_ACCEPT", ANY) in _USUAL:
            return _RENDERER, _RENDERER.media_type  # as ByAccept would find out, for almost every request
        return super().perform_content_negotiation(request, force)


def keyed(request: Request, request_line: str, body: Schema) -> Keyed | None:
    """Return the checked request with its Idempotency-Key, to be recorded; None without a key."""
    key = request_key(request, getattr(body, "id", None))
    if key is None:
        return None
    return Keyed(principal(request).key_domain, key, digest_of(request_line, body))


def id_of_new(request: Request, request_line: str, body: Schema) -> UUID | None:
    """Return the id of the object that the request creates: the one in its body, or the one of its key.

    Call it after all other checks of the request: from here on the key belongs to this request.

    Raises IdempotencyKeyReused.
    """
    first = keyed(request, request_line, body)
    return retry_until_deadline(lambda: record(first))[0] if first else getattr(body, "id", None)
