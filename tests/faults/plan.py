"""How much is tried, and by which seed: MXFLEET_FAULT_ROUNDS (a dozen, or 200 for the long run), MXFLEET_FAULT_SEED."""

import os
import random

ROUNDS = int(os.environ.get("MXFLEET_FAULT_ROUNDS", "12"))
SEED = os.environ.setdefault("MXFLEET_FAULT_SEED", str(random.SystemRandom().randrange(10**6)))
IS_LONG = ROUNDS >= 100
WIDTH = 10 if IS_LONG else min(ROUNDS, 12)
"""Hosts, and so purges at once: what two cores can carry. 200 rounds are two waves of each of the ten kinds."""
STOPPED_SECONDS = 40.0
"""Longer than a lease."""
AWAY_SECONDS = (0.5, 12.0) if IS_LONG else (0.5, 3.0)
"""How long the database or Redis is away, at least and at most."""


def dice(*names: object) -> random.Random:
    """Randomness that is the same for the same seed and names."""
    return random.Random(":".join([SEED, *map(str, names)]))
