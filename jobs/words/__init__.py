"""What we say to people, in their words: counts, sizes, ages, operations, and what a job came to. Pure.

Console, chat, tickets and reports lay these out, and say nothing of their own. What nobody knows is said first; a
share is never rounded up to all, a group that may be larger is "at least". Texts of mail and hosts are escaped and cut.
"""

from jobs.words.amounts import age, cell, count, named, number, share, size, time_of
from jobs.words.job import LONGEST, lines_of, text_of
from jobs.words.operations import operation
from jobs.words.results import is_over

__all__ = [
    "LONGEST",
    "age",
    "cell",
    "count",
    "is_over",
    "lines_of",
    "named",
    "number",
    "operation",
    "share",
    "size",
    "text_of",
    "time_of",
]
