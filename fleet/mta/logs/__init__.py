"""Mail logs, the same for every MTA: reading them by one remote command, their times, and rows of messages."""
