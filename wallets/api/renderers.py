"""Renderers of responses."""

from typing import Any

import orjson
from rest_framework.renderers import BaseRenderer


class JSONRenderer(BaseRenderer):
    """Render the value that the view returns as JSON in UTF-8."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None) -> bytes:
        return b"" if data is None else orjson.dumps(data)


class CSVRenderer(BaseRenderer):
    """Declares the media type. CSV responses are streamed without a renderer."""

    media_type = "text/csv"
    format = "csv"


class EventStreamRenderer(BaseRenderer):
    """Declares the media type of server-sent events, which are streamed without a renderer."""

    media_type = "text/event-stream"
    format = "events"
    charset = None
