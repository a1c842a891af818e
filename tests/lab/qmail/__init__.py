"""A qmail that Debian can not ship: its queue on disk, and stand-ins for its programs. Runs inside the lab's host.

The queue has the true format (INTERNALS.md and qmail-log(5) of qmail). The stand-in for qmail-send keeps its schedule
in memory while it runs, as the real one does, and writes down whatever anybody else does to its queue meanwhile.
Standard library only, and Debian's Python of the host.
"""
