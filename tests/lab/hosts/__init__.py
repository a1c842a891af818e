"""The hosts of the lab, one module per MTA. A new MTA is a new module here and one line in `ALL`."""

from __future__ import annotations

from tests.lab.hosts import exim, opensmtpd, postfix, qmail, sendmail
from tests.lab.hosts.spec import HostSpec

ALL: dict[str, HostSpec] = {
    spec.name: spec for module in (postfix, opensmtpd, exim, sendmail, qmail) for spec in module.HOSTS
}

__all__ = ["ALL", "HostSpec"]
