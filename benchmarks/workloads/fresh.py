"""A fresh key: the body runs and its result is cached. The services are new for every loop, the
body returns its argument.
"""

from benchmarks import loops, peers
from benchmarks.sampling import Sampler
from benchmarks.services import Cached, Plain


async def prepare(quick: bool) -> dict[str, Sampler]:
    """Samplers for the plain method, afresh, and the peers, a thousand keys a loop."""
    count = 1_000
    samplers = {
        "plain": Sampler(loops.fresh_keys(Plain), count),
        "afresh": Sampler(loops.fresh_keys(Cached), count),
    }
    for case, make_service in peers.available().items():
        samplers[case] = Sampler(loops.fresh_keys(make_service), count)
    return samplers
