"""All benchmarks, one after the other: `python -m tests.bench`."""

from tests.bench import fanout, finding, listings, malice, onboarding, overhead, stream, waiting
from tests.bench.settings import alone

if __name__ == "__main__":
    alone(overhead.run, fanout.run, listings.run, stream.run, waiting.run, malice.run, finding.run, onboarding.run)
