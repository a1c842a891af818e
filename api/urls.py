"""All addresses of the API. The root URL configuration includes this and takes the handlers over."""

from django.urls import include, path

from api import errors, health
from api.v1.root import home

urlpatterns = [
    path("", home),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", health.Metrics.as_view()),
    path("api/v1/", include("api.v1.urls")),
]

handler400 = errors.bad_request
handler404 = errors.not_found
handler500 = errors.internal
