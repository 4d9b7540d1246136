"""GET /api/schema: the OpenAPI document as bytes, built once in each process.

Building it takes more than half a second of CPU, half of that for YAML. A worker builds it when it starts
(walletsvc/gunicorn.py), before it accepts connections. No request waits for it, and no thread competes with
the event loop for the interpreter. Outside the server, as in tests, the first request builds it.
"""

import gzip
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import orjson
from django.http import HttpResponse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiYamlRenderer
from rest_framework.request import Request

from wallets.access.authentication import NoAuthentication
from wallets.api.endpoint import Endpoint
from wallets.api.negotiation import media_type_for
from wallets.api.renderers import JSONRenderer
from wallets.batching import once
from wallets.contract.parsing import names_tag
from wallets.problems import FieldError, ValidationError

YAML: Final = "yaml"
JSON: Final = "json"
FORMATS: Final = {  # by media type; the first one for */*
    "application/vnd.oai.openapi": YAML,
    "application/yaml": YAML,
    "application/vnd.oai.openapi+json": JSON,
    "application/json": JSON,
}
BY_FORMAT: Final = {YAML: "application/vnd.oai.openapi", JSON: "application/json"}
CACHE_CONTROL: Final = "public, max-age=60"  # seconds; as for static files
_Q_ZERO: Final = re.compile(r"q=0(\.0*)?")


@dataclass(frozen=True, slots=True)
class Document:
    """One format of the document."""

    plain: bytes
    compressed: bytes
    digest: str

    def tag(self, coding: str) -> str:
        """Return a strong ETag: it differs for the compressed bytes."""
        return f'"{self.digest}-{coding}"'


def build() -> dict[str, Document]:
    """Build the document in each format. The bytes are equal in all processes with the same settings."""
    schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    yaml = OpenApiYamlRenderer().render(schema, renderer_context={})  # type: ignore[no-untyped-call]
    return {YAML: _document(yaml), JSON: _document(orjson.dumps(schema))}


def _document(content: bytes) -> Document:
    return Document(content, gzip.compress(content, mtime=0), sha256(content).hexdigest()[:32])


documents: Final = once(build)


class DocumentView(Endpoint):
    """/api/schema"""

    authentication_classes = [NoAuthentication]
    permission_classes = []
    schema = None  # the document does not describe itself

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """Choose the media type by `format`, or by Accept."""
        return JSONRenderer(), _media_type(request)  # the renderer is for problems

    def get(self, request: Request) -> HttpResponse:
        media_type: str = request.accepted_media_type
        document = documents()[FORMATS[media_type]]
        is_compressed = accepts_gzip(request.META.get("HTTP_ACCEPT_ENCODING", ""))
        tag = document.tag("gzip" if is_compressed else "identity")
        headers = {"ETag": tag, "Cache-Control": CACHE_CONTROL, "Vary": "Accept, Accept-Encoding"}
        if names_tag(request.META.get("HTTP_IF_NONE_MATCH"), tag):
            return HttpResponse(status=304, headers=headers)
        if is_compressed:
            headers["Content-Encoding"] = "gzip"
        content = document.compressed if is_compressed else document.plain
        return HttpResponse(content, content_type=media_type, headers=headers)


def _media_type(request: Request) -> str:
    """Return the media type. Raises ValidationError for an unknown `format`, or NotAcceptable."""
    asked = request.query_params.get("format")
    if asked is None:
        return media_type_for(request, list(FORMATS))
    try:
        return BY_FORMAT[asked]
    except KeyError:
        raise ValidationError(
            errors=[FieldError("format", "unknown_value", "must be yaml or json")]
        ) from None


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header names gzip with a weight above zero."""
    for item in header.lower().split(","):
        coding, _, weight = item.partition(";")
        if coding.strip() == "gzip":
            return not _Q_ZERO.fullmatch(weight.strip())
    return False
