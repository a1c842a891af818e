"""Blocking senders: the flow, the list in a file, the proof. Pure."""
