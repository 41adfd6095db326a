"""What a call, a stream, a broadcast and a connection cost, beside other RPC stacks.

How a figure comes about:

- Every stack (``stacks``) gets two processes, a client and a server, that talk over the loopback
  interface. A client starts its server on a free port and ends it.
- Stacks take turns: in a round, each case is sampled on one stack after the other, so that a ratio
  compares moments that lie next to each other. While one works, the others are idle. A ratio is the
  median, over all rounds, of the ratios within a round.
- A sample is the shortest of three loops of some dozens of milliseconds. ``load`` has the loops;
  they are the same for all stacks.
- The processes may use all cores, except where one call is in flight at a time: there each process
  has a core of its own, if the machine has two.
- CPU time is that of both processes with all their threads.
- The garbage collector runs before each sample and stays on within it, as in a server that lives
  long.
- All servers run with asyncio's own event loop.
- Memory is the difference in the server's resident size, measured in fresh processes.

``conductor`` starts the clients and gives the orders, ``client`` and ``server`` carry them out.
"""
