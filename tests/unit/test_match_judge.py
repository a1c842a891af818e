"""What each field and operator means, judged on messages."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from fleet.match import ContentMissing, parse, unsupported_fields
from fleet.mta.records import QueueEntry, Recipient

NOW = 1_700_000_000.0


@dataclass
class Read:
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | None = b""


@dataclass
class Message:
    sender: str = "alice@example.com"
    to: Sequence[str] = ("bob@yahoo.com",)
    reason: str = ""
    queue_id: str = "F2A1A27891E"
    state: str = "deferred"
    native_state: str = ""
    age: float = 3600
    size: int = 2048
    attempts: int | None = 3
    gone: Sequence[str] = field(default_factory=tuple)

    def entry(self) -> QueueEntry:
        recipients = [Recipient(address, self.reason) for address in self.to]
        recipients += [Recipient(address, state="delivered") for address in self.gone]
        native = self.native_state or self.state
        return QueueEntry(
            self.queue_id, self.state, native, NOW - self.age, self.sender, recipients, self.size, self.attempts
        )


def finds(text: str, message: Message) -> bool | None:
    judge = parse(text).compile(NOW)
    entry = message.entry()
    assert judge(entry) is judge.envelope(entry)
    return judge(entry)


def reads(text: str, content: Read) -> bool:
    judge = parse(text).compile(NOW)
    assert judge(Message().entry()) is None
    return judge.with_content(Message().entry(), content)


@pytest.mark.parametrize(
    ("text", "sender"),
    [
        ("from:<>", "<>"),
        ("from:Alice@EXAMPLE.com", "aLICE@example.COM"),
        ("from:*@example.com", "a.b@Example.com"),
        ("from:a?ice@*", "alice@example.com"),
        ("from:al*e@ex*", "alice@example.com"),
        (r'from:"\"a b\"@x.test"', '"a b"@x.test'),
        (r'from:"\"ab\"@x.test"', "ab@x.test"),
        ("from:ab@x.test", '"ab"@x.test'),
        (r"from:a\*b@x.test", "a*b@x.test"),
        ("from:caf\\xe9@x.test", "caf\\xe9@x.test"),
        ("from:used@exämple.com", "used@xn--exmple-cua.com"),
        ("from:used@xn--exmple-cua.com", "used@EXÄMPLE.com"),
        ("from:*@exämple.com", "used@xn--exmple-cua.com"),
        ("from:*@xn--exmple-cua.com", "used@exämple.com"),
        ("from:*@xn--*", "used@xn--exmple-cua.com"),
        ("from:u@exa\u0308mple.com", "u@ex\u00e4mple.com"),
        ("from~EXAMPLE", "alice@example.com"),
        ("from~exämple", "used@xn--exmple-cua.com"),
        ("from=/^al.*e@/", "alice@example.com"),
        ("from=/^AL/i", "alice@example.com"),
        ("from-domain:Example.com", "alice@example.COM"),
        ("from-domain:.example.com", "alice@example.com"),
        ("from-domain:.example.com", "alice@mx.Example.com"),
        ("from-domain:*.example.com", "alice@mx.example.com"),
        ("from-domain:.example.*", "alice@mx.example.org"),
        ("from-domain:exämple.com", "u@xn--exmple-cua.com"),
        ("from-domain:x.test", '"a@b"@x.test'),
        ('from-domain:""', "<>"),
        ("from-domain~ample", "alice@example.com"),
        ("from-domain=/^example/", "alice@example.com"),
        ("-from:bob@x.test", "alice@example.com"),
    ],
)
def test_a_sender_is_found(text: str, sender: str) -> None:
    assert finds(text, Message(sender=sender)) is True
    assert finds(f"NOT ({text})", Message(sender=sender)) is False


@pytest.mark.parametrize(
    ("text", "sender"),
    [
        ("from:<>", "alice@example.com"),
        ("from:alice", "alice@example.com"),
        ("from:example.com", "alice@example.com"),
        ("from:*@example.com", "alice@mx.example.com"),
        ("from:a?b@x.test", "ab@x.test"),
        ("from:ab*ba@x.test", "aba@x.test"),
        (r"from:a\*b@x.test", "aXb@x.test"),
        ("from:a.b@x.test", "axb@x.test"),
        ("from:u\u0308@x.test", "\u00fc@x.test"),
        ("from=/^AL/", "alice@example.com"),
        ("from-domain:example.com", "alice@mx.example.com"),
        ("from-domain:.example.com", "alice@notexample.com"),
        ("from-domain:.example.com", "alice@example.com.evil.test"),
        ("from-domain:*.example.com", "alice@example.com"),
        ("from-domain:?*", "<>"),
        ("from-domain:alice", "alice"),
    ],
)
def test_another_sender_is_not_found(text: str, sender: str) -> None:
    assert finds(text, Message(sender=sender)) is False


def test_any_undelivered_recipient_counts() -> None:
    message = Message(to=["a@x.test", "b@yahoo.com"])
    assert finds("to:*@yahoo.com", message)
    assert finds("to-domain:yahoo.com", message)


def test_a_delivered_recipient_is_not_looked_at() -> None:
    message = Message(to=["a@x.test"], gone=["b@yahoo.com"])
    assert finds("to:b@yahoo.com", message) is False
    assert finds("to-domain:yahoo.com", message) is False


def test_a_reason_is_the_last_of_any_recipient() -> None:
    message = Message(reason="connect to mx[192.0.2.1]:25: Connection timed out")
    assert finds("reason=/Connection (timed out|refused)/", message)
    assert finds('reason~"CONNECTION TIMED"', message)
    assert finds("reason:connect*out", message)
    assert finds("reason:connect", message) is False


def test_the_case_of_a_queue_id_is_kept() -> None:
    assert finds("id:4NzQ0z1bDFz2Qx", Message(queue_id="4NzQ0z1bDFz2Qx"))
    assert finds("id:4nzq0z1bdfz2qx", Message(queue_id="4NzQ0z1bDFz2Qx")) is False


def test_many_queue_ids_are_one_look_up() -> None:
    text = " OR ".join(f"id:{number:X}" for number in range(900)) + " OR from:<>"
    assert finds(text, Message(queue_id="1F"))
    assert finds(text, Message(queue_id="1f")) is False
    assert finds(text, Message(sender="<>"))


@pytest.mark.parametrize("word", ["frozen", "quarantined", "paused"])
def test_hold_finds_the_mtas_own_word_and_the_word_itself(word: str) -> None:
    message = Message(state="hold", native_state=word)
    assert finds("state:hold", message)
    assert finds(f"state:{word}", message)
    assert finds("state:deferred", message) is False
    assert finds("state:hold", Message(state="deferred", native_state=word))


def test_a_state_is_found_by_wildcard_and_in_any_case() -> None:
    assert finds("state:DEF*", Message())
    assert finds("state:Deferred", Message())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size:2K", True),
        ("size>2K", False),
        ("size>=2K", True),
        ("size<2049", True),
        ("size<=2047", False),
        ("age>59m", True),
        ("age>1h", False),
        ("age>=1h", True),
        ("age<1h", False),
        ("age<=3600s", True),
        ("age<1d", True),
        ("attempts:3", True),
        ("attempts>3", False),
        ("attempts>=3 attempts<4", True),
    ],
)
def test_numbers_compare(text: str, expected: bool) -> None:
    assert finds(text, Message()) is expected


def test_a_message_without_a_count_of_attempts_is_never_found_by_it() -> None:
    assert finds("attempts>=0", Message(attempts=None)) is False


def test_all_finds_everything() -> None:
    assert finds("ALL", Message()) is True
    assert parse("ALL").compile(NOW).with_content(Message().entry(), Read()) is True


def test_content_is_asked_for_only_when_the_envelope_leaves_it_open() -> None:
    assert finds("subject~x from:alice@example.com", Message()) is None
    assert finds("subject~x from:bob@example.com", Message()) is False
    assert finds("subject~x OR from:alice@example.com", Message()) is True
    assert finds("subject~x OR from:bob@example.com", Message()) is None
    assert finds("-(subject~x from:bob@example.com)", Message()) is True
    assert finds("-subject~x", Message()) is None
    assert finds("(subject~x OR body~y) (from:a OR size>1G)", Message()) is False


def test_an_expression_says_what_it_needs() -> None:
    assert not parse("from:a").needs_headers
    assert parse("from:a subject~x").needs_headers
    assert parse("msgid:x").needs_headers
    assert parse("body~x").needs_body
    assert not parse("body~x").needs_headers
    assert parse("body~x header[X-Spam-Flag]:YES OR from:a").fields == {"body", "header[x-spam-flag]", "from"}


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("subject:hello", [("SUBJECT", "Hello")]),
        ("subject:hello", [("Subject", " Hello ")]),
        ("subject:größe", [("Subject", "=?iso-8859-1?q?Gr=F6=DFe?=")]),
        ("subject:größe", [("Subject", "=?utf-8?B?R3LDtg==?= =?utf-8?b?w59l?=")]),
        ("subject:ä", [("Subject", "=?utf-8?q?=C3?= =?utf-8?q?=A4?=")]),
        ('subject:"a ä b"', [("Subject", "a =?utf-8*de?q?=C3=A4?= b")]),
        ("subject:=?nope?q?x?=", [("Subject", "=?nope?q?x?=")]),
        ("subject:=?utf-8?x?x?=", [("Subject", "=?utf-8?x?x?=")]),
        ("subject~ä", [("Subject", "\udcc3\udca4")]),
        ('subject:""', []),
        ("subject=/^$/", [("Subject", "")]),
        ("header[X-Spam-Flag]:yes", [("X-Spam-Flag", "NO"), ("x-spam-flag", "YES")]),
        ("header[X-Spam-Flag]:*", [("X-Spam-Flag", "")]),
        ("-header[X-Spam-Flag]:*", [("X-Other", "")]),
        ("header[x]=/^a.b$/", [("X", "a-b")]),
        ("msgid:1@X.test", [("Message-ID", "<1@x.test>")]),
        ("msgid:<1@x.test>", [("message-id", " <1@x.test>")]),
        ("msgid:*@x.test", [("message-id", "<1@x.test>")]),
    ],
)
def test_a_header_is_found(text: str, headers: list[tuple[str, str]]) -> None:
    assert reads(text, Read(headers)) is True


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("subject:hello", [("Subject", "hello world")]),
        ("subject:hello", [("X-Subject", "hello")]),
        ("header[x]:*", [("Y", "")]),
        ("msgid:1@x.test", []),
        ("msgid:1@x.test", [("Message-ID", "<11@x.test>")]),
    ],
)
def test_another_header_is_not_found(text: str, headers: list[tuple[str, str]]) -> None:
    assert reads(text, Read(headers)) is False


def test_a_body_is_raw_and_cut_at_one_mib() -> None:
    assert reads("body~VIAGRA", Read(body=b"buy viagra now"))
    assert reads("body~ÄÖ", Read(body="äö".encode()))
    assert reads(r"body=/\bnow$/", Read(body=b"\xff\xfe buy now"))
    assert reads("body~end", Read(body=b"x" * (1 << 20) + b"end")) is False
    assert reads("body=/end/", Read(body=b"x" * (1 << 20) + b"end")) is False


def test_a_body_that_was_not_read_is_an_error_and_never_false() -> None:
    judge = parse("-body~x").compile(NOW)
    with pytest.raises(ContentMissing):
        judge.with_content(Message().entry(), Read(body=None))
    assert parse("from:b body~x").compile(NOW).with_content(Message().entry(), Read(body=None)) is False


def test_a_lone_surrogate_in_a_listing_disturbs_nothing() -> None:
    for text in ("from=/a/", "from:a*b*c", "from~a", "from:a@x.test", "from-domain:?x"):
        assert finds(text, Message(sender="\udce9\ud800@x")) is False


def test_fields_that_an_mta_does_not_keep_are_named() -> None:
    expression = parse("attempts>3 header[X-Y]:z from:a OR -msgid:b")
    assert unsupported_fields(expression, frozenset({"from", "header"})) == ["attempts", "msgid"]
    assert unsupported_fields(expression, frozenset({"from", "attempts", "msgid"})) == ["header[x-y]"]
