"""Listing, choosing, changing and reading back messages of a queue."""
