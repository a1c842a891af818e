"""The cast, who ask over HTTP."""

from tests.http.conftest import _looks_each_time, world

__all__ = ["_looks_each_time", "world"]
