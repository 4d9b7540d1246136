"""The converter `id` of URL paths."""

import re
from typing import Final
from uuid import UUID

from django.urls import register_converter

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class IdConverter:
    """Convert a UUID. Any other text becomes the nil UUID, which names nothing, so the view responds 404."""

    regex = "[^/]+"

    def to_python(self, value: str) -> UUID:
        return UUID(value) if _UUID.fullmatch(value) else UUID(int=0)

    def to_url(self, value: UUID) -> str:
        return str(value)


register_converter(IdConverter, "id")
