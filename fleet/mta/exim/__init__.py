"""Exim, 4.94 and later."""
