"""Which representation is sent."""

from typing import Any

from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request


class AlwaysJson(BaseContentNegotiation):
    """There is one representation; RFC 9110 12.4.1 lets a server send it whatever Accept says."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        """That of the Content-Type, where there are several; the only one says itself what it takes."""
        if len(parsers) == 1:
            return parsers[0]
        kind = request.content_type.partition(";")[0].strip().lower()
        return next((each for each in parsers if each.media_type == kind), None)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type
