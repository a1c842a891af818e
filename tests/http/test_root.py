"""Where one begins."""

from api.v1.root import PLACES
from api.v1.urls import urlpatterns
from tests.http.cast import Caller, World
from tests.http.test_errors import refused


def test_the_root_leads_to_all_that_lies_directly_below(world: World) -> None:
    routes = [str(pattern.pattern) for pattern in urlpatterns]
    below = {route for route in routes if route.count("/") == 1}
    answer = world.erin.get("")
    assert answer.status_code == 200
    assert answer.json() == {name: f"http://testserver/api/v1/{name}/" for name in PLACES}
    assert {f"{name}/" for name in PLACES} == below
    for address in answer.json().values():
        assert world.dana.get(address).status_code == 200, address


def test_the_root_needs_a_token_as_all_others_do(world: World) -> None:
    refused(Caller("").get(""), 401, "unauthenticated")
    refused(world.erin.get("?x=1"), 400, "unknown_parameter")


def test_a_browser_is_led_to_the_documentation_without_a_token() -> None:
    caller = Caller("")
    answer = caller.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/api/v1/docs/")
    page = caller.get(answer.headers["Location"])
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    refused(caller.send("DELETE", "/"), 405, "method_not_allowed")
