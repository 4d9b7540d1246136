"""How answers become bytes."""

from typing import Any

import orjson
from rest_framework.renderers import BaseRenderer


class JSONRenderer(BaseRenderer):
    """JSON in UTF-8, straight from what the view returns."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None) -> bytes:
        return b"" if data is None else orjson.dumps(data)


class CSVRenderer(BaseRenderer):
    """Names the media type; what is sent as CSV is streamed past the renderers."""

    media_type = "text/csv"
    format = "csv"


class EventStreamRenderer(BaseRenderer):
    """The same for server-sent events."""

    media_type = "text/event-stream"
    format = "events"
    charset = None
