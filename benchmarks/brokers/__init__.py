"""What messages cost on their way through the outbox, a broker and the inbox, beside code by hand.

How a figure comes about:

- PostgreSQL is as in ``benchmarks.db``; RabbitMQ is that of the distribution, one node started for
  the run, with quorum queues. Where it is not installed the rows are left out, and that is printed.
- Peers are aio-pika and asyncpg without anything of afresh, with the same messages, the same number
  of messages under way, and as many workers.
- Every interpreter and twin gets a process of its own, and they take turns round by round. The
  processes may use all cores, which they share with both servers; the garbage collector stays on.

``peers`` has the code by hand, ``services`` that with afresh, ``workloads`` the loops, ``worker``
the process that runs them; ``latency`` needs two processes: ``sender`` and ``reader``.
"""
