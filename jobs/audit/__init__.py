"""The audit trail: entries, keys, checkpoints, and what machines remember of it."""
