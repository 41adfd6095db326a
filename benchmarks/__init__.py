"""What afresh costs, measured beside its neighbours: ``python -m benchmarks`` (``make bench``).

How a figure comes about:

- Every interpreter and twin under test gets a process of its own, pinned to one core where the
  system allows it. One process works at a time, and they take turns round by round, so that a slow
  minute of the machine is shared by all of them.
- In a round, every case of a workload (the baseline, afresh, the peers) gives one sample: the
  shortest of three loops of some milliseconds. The loops live inside an ``async def`` and look the
  same for all; each case runs its own copy of the code object, so that the interpreter's inline
  caches serve one callee each. Nothing is subtracted, not even the loop.
- A ratio is the median, over all rounds, of the ratios within a round. A time is the median over
  all rounds.
- A cascade over 100,000 nodes takes long to set up and is sampled in every third round.
- The processes are started anew several times in a run, because one process's memory layout can
  favour one case.
- The garbage collector runs before each round and is off within it. Memory is measured apart, in
  fresh processes.

The baseline that most rows divide by is awaiting a method ``async def get(self, key): return key``.

Calls between processes are measured by ``rpc``, in its own way.

``rows`` holds the bounds; ``workloads`` what is run; ``peers`` the neighbours as their
documentation shows them; ``conductor`` and ``worker`` the two sides of a run; ``report`` what is
printed. Nothing here is imported by afresh or by its tests.
"""
