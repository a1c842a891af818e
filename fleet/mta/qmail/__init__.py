"""qmail: netqmail 1.06 and notqmail, under daemontools, with smtpfront-qmail or qmail-smtpd in front."""
