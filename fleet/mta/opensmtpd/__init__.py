"""OpenSMTPD, 6.8 and later (the portable version)."""
