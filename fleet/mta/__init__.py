"""Pure adapters, one folder per MTA. REGISTRY has dotted names, imported on first use."""

REGISTRY: dict[str, str] = {
    "postfix": "fleet.mta.postfix.Postfix",
    "sendmail": "fleet.mta.sendmail.Sendmail",
    "exim": "fleet.mta.exim.Exim",
    "opensmtpd": "fleet.mta.opensmtpd.OpenSmtpd",
    "qmail": "fleet.mta.qmail.Qmail",
}
