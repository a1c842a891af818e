"""kombu's Redis transport, made to outlive messages that are none.

As it comes, one text in a queue that is no message ends the worker that reads it, so whoever can write to Redis could
keep all of them from working. Here it is dropped with a line in the log; what it might have meant, the database knows.
"""

import logging
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis

log = logging.getLogger(__name__)

NO_MESSAGE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What decoding and unwrapping of an arbitrary text raises; broken connections raise redis-py's own errors."""


class Channel(redis.Channel):
    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc] # Kombu has no types
        except NO_MESSAGE as error:
            log.warning("dropped what is no message: %s", type(error).__name__)
            raise Empty from None


class Transport(redis.Transport):
    Channel = Channel


def install() -> None:
    """Use it for every Redis URL of this process."""
    TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = "deploy.broker:Transport"
