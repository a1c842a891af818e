"""Whose turn it is: a token's that was good in this process lately, else the address's. Anybody can invent a token."""

import threading
from collections import OrderedDict
from hashlib import sha256

MOST = 10_000
"""Tokens that are remembered; the one that was used longest ago is forgotten first."""

_good: OrderedDict[str, None] = OrderedDict()
_lock = threading.Lock()


def note_good(digest: str) -> None:
    """A request with the token of this digest (`digest_of`) was let in."""
    with _lock:
        _good[digest] = None
        _good.move_to_end(digest)
        while len(_good) > MOST:
            _good.popitem(last=False)


def caller_of(authorization: bytes, address: str) -> str:
    """The token's digest, however its scheme and the blanks before it are written, or the address."""
    secret = authorization.strip(b" ").partition(b" ")[2].strip(b" ")
    digest = digest_of(secret)
    with _lock:
        return digest if digest in _good else address


def digest_of(secret: bytes) -> str:
    """What is stored of a token."""
    return sha256(secret).hexdigest()
