"""What administrators keep: hosts, credentials, accounts."""
