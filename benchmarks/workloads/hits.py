"""A cached call: the same key again and again, through afresh and through each peer."""

from benchmarks import loops, peers
from benchmarks.sampling import Sampler
from benchmarks.services import Cached, Plain


async def prepare(quick: bool) -> dict[str, Sampler]:
    """Samplers for the empty loop, the plain method, afresh with an int and a str key, and the
    peers.
    """
    samplers = {
        "empty loop": Sampler(loops.nothing()),
        "plain": Sampler(loops.same_key(Plain(), 7)),
        "afresh int": Sampler(loops.same_key(Cached(), 7)),
        "afresh str": Sampler(loops.same_key(Cached(), "key")),
    }
    for case, make_service in peers.available().items():
        samplers[case] = Sampler(loops.same_key(make_service(), 7))
    return samplers
