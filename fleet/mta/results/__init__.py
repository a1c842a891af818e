"""What each operation comes to on one instance: a run's `result`, and the `before` and `after` of its evidence.

Who makes one is typed with it, and the API's document is made of it (table.py). Times are epoch seconds here and
RFC 3339 in answers.
"""
