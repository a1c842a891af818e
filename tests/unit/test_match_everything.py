"""Which selections are true for every message, and which ask for held messages by name."""

import pytest

from fleet.match import parse


@pytest.mark.parametrize(
    "text",
    [
        "ALL",
        "from:*",
        "from:?*",
        "to:*",
        "from-domain:*",
        "id:*",
        "state:*",
        "subject:*",
        "reason:*",
        'body~""',
        "size>=0",
        "attempts>=0",
        "age>=0s",
        "-size<0",
        "from=//",
        "from=/.*/",
        "from=/^/",
        "from=/$/",
        "from=/^.*$/",
        "from=/(.|x)/",
        r"to=/[\s\S]/",
        r"subject=/\A(.*)\z/",
        "subject=/.*/",
        "reason=/x?/",
        "from:a OR -from:a",
        "-(from:a -from:a)",
        "from:a OR to:b OR -from:a",
        "(from:a OR -from:a) (to:b OR -to:b)",
        "(from:a OR from:*) size>=0",
        "from:a OR -(from:a to:b)",
        "from:a to:b OR -from:a OR -to:b",
        "size>5 OR size<=5",
        "size:5 OR size>5 OR size<5",
        "age<4h OR age>3h",
        "age>=1h OR -age>=30m OR age>10m",
        "state:incoming OR state:active OR state:deferred OR state:hold OR state:maildrop",
        "-state:hold OR -state:active",
        "--from:*",
        "header[X]:a OR -header[X]:a",
        "-(" + " ".join(f"from:a{number}" for number in range(50)) + " -from:a7)",
    ],
)
def test_a_selection_of_everything_is_recognised(text: str) -> None:
    assert parse(text).matches_everything()


@pytest.mark.parametrize(
    "text",
    [
        "from:a",
        "from:*@*",
        "from:??*",
        "from-domain:?*",
        "-from:*",
        "from=/@/",
        "from=/[^Z]/",
        "from=/^[^ж]*$/",
        "from=/^.{0,200}$/",
        "from=/^[^\\w]|[\\w]{2}/",
        "from-domain=/./",
        "reason=/./",
        "header[X]:*",
        "header[X]=/.*/",
        "msgid:*",
        "size>0",
        "size>5 OR size<5",
        "age>4h OR age<4h",
        "from:a OR -from:b",
        "from:a OR -to:a",
        "state:incoming OR state:active OR state:deferred OR state:hold",
        "state:frozen OR -state:hold",
        "from:a -from:a",
        " OR ".join(f"from:a{number}" for number in range(500)),
    ],
)
def test_a_selection_that_leaves_something_out_is_not_everything(text: str) -> None:
    assert not parse(text).matches_everything()


def test_only_the_word_all_is_literally_all() -> None:
    assert parse("ALL").is_all
    assert not parse("from:*").is_all


@pytest.mark.parametrize("text", ["state:hold", "from:a OR state:HOLD", "-(from:a -state:hold)", "state:frozen"])
def test_holds_asked_for_by_name_are_recognised(text: str) -> None:
    assert parse(text).mentions_hold()


@pytest.mark.parametrize("text", ["ALL", "-state:hold", "state:h*", "-(from:a state:hold)", "subject:hold"])
def test_holds_not_asked_for_by_name_are_others(text: str) -> None:
    assert not parse(text).mentions_hold()
