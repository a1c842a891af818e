"""Each method of each address says which scope a token needs for it."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import URLPattern
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from api.auth import UNSCOPED
from api.tokens import SCOPES
from api.v1.events import events
from api.v1.urls import urlpatterns
from api.viewsets import ApiViewSet

OPEN = (SpectacularAPIView, SpectacularSwaggerView)
"""The document, which anybody may read. `events` asks for its scope itself."""


def views() -> Iterator[tuple[str, Any]]:
    for each in urlpatterns:
        assert isinstance(each, URLPattern)
        view: Any = each.callback
        if view is not events and not issubclass(view.cls, OPEN):
            yield str(each.pattern), view


@pytest.mark.parametrize(("address", "view"), [*views()])
def test_a_view_names_a_scope_for_each_of_its_methods(address: str, view: Any) -> None:
    assert issubclass(view.cls, ApiViewSet)
    scopes = view.initkwargs.get("scopes", view.cls.scopes)
    methods = {"GET" if method == "head" else method.upper() for method in view.actions}
    assert methods - scopes.keys() == set()
    assert {scopes[method] for method in methods} <= {*SCOPES, UNSCOPED}
