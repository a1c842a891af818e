"""Where Exim, Sendmail, OpenSMTPD and qmail take mail, and which of these places a proof asks."""

import pytest

from fleet.mta.blocks.listeners import Listener, listening
from fleet.mta.exim.discovery import listeners as exim
from fleet.mta.opensmtpd.conf import listeners as opensmtpd
from fleet.mta.opensmtpd.conf import statements
from fleet.mta.qmail.discovery import Service
from fleet.mta.qmail.discovery import listeners as qmail
from fleet.mta.records import HostFacts, InstanceFacts
from fleet.mta.sendmail.discovery import parse_instances
from fleet.mta.steps import Completed

OUTER = {"local_interfaces": "<; 192.0.2.1 ; 127.0.0.1"}


def split(rows: list[list[object]], elsewhere: str = "") -> tuple[list[str], list[str]]:
    """The names of what is asked and of what is not."""
    found = listening(InstanceFacts("mx", "x", "x", "1", "/", (), options={"listeners": rows}), elsewhere)
    return [each.name for each in found if not each.unasked], [each.name for each in found if each.unasked]


@pytest.mark.parametrize(
    ("settings", "daemons", "asked", "not_asked"),
    [
        (OUTER, [], ["192.0.2.1 port 25"], ["127.0.0.1 port 25"]),
        ({"local_interfaces": "127.0.0.1"}, [], ["127.0.0.1 port 25"], []),
        (
            OUTER | {"daemon_smtp_ports": "25 : 465 : 587", "tls_on_connect_ports": "465"},
            [],
            ["192.0.2.1 port 25", "192.0.2.1 port 587"],
            ["192.0.2.1 port 465", "127.0.0.1 port 25", "127.0.0.1 port 465", "127.0.0.1 port 587"],
        ),
        (
            OUTER,
            ["/usr/sbin/exim4 -bd -q30m -oX 587:25 -oP /run/exim4/exim.pid"],
            ["-oX 587:25 (192.0.2.1 port 587)", "-oX 587:25 (192.0.2.1 port 25)"],
            ["-oX 587:25 (127.0.0.1 port 587)", "-oX 587:25 (127.0.0.1 port 25)"],
        ),
        (
            OUTER,
            ["exim -bd", "exim -bdf -oX <;192.0.2.7.25;[2001:db8::7]:26"],
            [
                "192.0.2.1 port 25",
                "-oX <;192.0.2.7.25;[2001:db8::7]:26 (192.0.2.7 port 25)",
                "-oX <;192.0.2.7.25;[2001:db8::7]:26 (2001:db8::7 port 26)",
            ],
            ["127.0.0.1 port 25"],
        ),
    ],
)
def test_every_daemon_of_exim_counts_as_it_was_started(
    settings: dict[str, str], daemons: list[str], asked: list[str], not_asked: list[str]
) -> None:
    assert split(exim(settings, daemons)) == (asked, not_asked)


SENDMAIL = """config /etc/mail/sendmail.cf
line O QueueDirectory=/var/spool/mqueue
line O DaemonPortOptions=Family=inet, Name=MTA-v4, Port=smtp, Addr=192.0.2.1
line O DaemonPortOptions=Family=inet, Name=SECOND, Port=25, Addr=192.0.2.2
line O DaemonPortOptions=Family=inet6, Name=SIX, Port=smtp, Addr=IPv6:2001:db8::1
line O DaemonPortOptions=Family=inet, Name=INNER, Port=smtp, Addr=127.0.0.1
line O DaemonPortOptions=Family=inet6, Name=INNER6, Port=smtp, Addr=ipv6:::1
line O DaemonPortOptions=Family=inet, Name=MSP-v4, Port=submission, M=Ea
line O DaemonPortOptions=Family=inet, Name=TLSMTA, Port=2465, M=s
end
"""


def test_every_daemon_port_of_sendmail_on_25_is_asked_and_the_others_are_named() -> None:
    [found] = parse_instances(Completed(0, SENDMAIL.encode()), HostFacts(), "sm")
    asked, others = split(found.options["listeners"], "told")
    assert asked == ["MTA-v4 (192.0.2.1 port 25)", "SECOND (192.0.2.2 port 25)", "SIX (2001:db8::1 port 25)"]
    inner = ["INNER (127.0.0.1 port 25)", "INNER6 (::1 port 25)"]
    assert others == [*inner, "MSP-v4 (0.0.0.0 port 587)", "TLSMTA (0.0.0.0 port 2465)"]


def test_every_listen_on_of_opensmtpd_is_asked_on_25_with_its_tag() -> None:
    config = """listen on eth0 tag OUT
listen on 192.0.2.2 tls pki mx
listen on eth0 port submission tls-require auth
listen on eth0 smtps pki mx
listen on lo0
listen on socket
"""
    found = opensmtpd(statements(config.splitlines()), {"eth0": ["192.0.2.1"], "lo0": ["127.0.0.1"]})
    asked, others = split(found, "told")
    assert asked == ["listen on eth0 tag OUT (192.0.2.1 port 25)", "listen on 192.0.2.2 (192.0.2.2 port 25)"]
    assert others == [
        "listen on eth0 (192.0.2.1 port 587)",
        "listen on eth0 (192.0.2.1 port 465)",
        "listen on lo0 (127.0.0.1 port 25)",
    ]


def test_every_server_of_qmail_counts_and_anybody_elses_on_port_25() -> None:
    services = [
        Service("/service/smtpd", ["exec tcpserver -v -x t.cdb 192.0.2.1 25 /var/qmail/bin/qmail-smtpd"]),
        Service("/service/alt", ["exec tcpserver 192.0.2.1 2525 smtpfront-qmail"]),
        Service("/service/smtps", ["exec sslserver -e 192.0.2.1 smtps /var/qmail/bin/qmail-smtpd"]),
        Service("/service/qpsmtpd", ["exec tcpserver -R 192.0.2.2 smtp ./qpsmtpd"]),
        Service("/service/pop3", ["exec tcpserver 0 110 qmail-popup"]),
    ]
    asked, others = split(qmail(services, services[:3]))
    assert asked == [
        "/service/smtpd (192.0.2.1 port 25)",
        "/service/alt (192.0.2.1 port 2525)",
        "/service/qpsmtpd (192.0.2.2 port 25)",
    ]
    assert others == ["/service/smtps (192.0.2.1 port 465)"]


def test_a_host_that_an_older_release_discovered_is_asked_where_it_said() -> None:
    options = {"listen": [["192.0.2.1", 25], ["192.0.2.1", 25], ["192.0.2.1", 465]]}
    plain, tls = listening(InstanceFacts("mx", "x", "x", "1", "/", (), options=options))
    assert plain == Listener("192.0.2.1", 25)
    assert "TLS" in tls.note


def test_where_no_outer_one_is_on_port_25_every_outer_one_is_asked() -> None:
    rows: list[list[object]] = [["127.0.0.1", 25, "", ""], ["192.0.2.1", 587, "", ""], ["192.0.2.1", 2525, "", ""]]
    assert split(rows, "told") == (["192.0.2.1 port 587", "192.0.2.1 port 2525"], ["127.0.0.1 port 25"])
