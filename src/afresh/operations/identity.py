"""Names that are nobody else's: of operations and events, and of hosts."""

from __future__ import annotations

import itertools
import os
import re
import secrets
import socket
import time

__all__ = ["new_host_id", "new_uuid"]

_hosts = itertools.count(1)


def new_uuid() -> str:
    """Return the name of a new operation or event: 32 hexadecimal digits, in order of time.

    It is a UUID of version 7 (RFC 9562, section 5.7): milliseconds first, so that rows that are
    written together stand together in an index.
    """
    tail = secrets.randbits(74)
    return (
        f"{time.time_ns() // 1_000_000 & 0xFFFFFFFFFFFF:012x}"
        f"7{tail >> 62:03x}{0x8000000000000000 | tail & 0x3FFFFFFFFFFFFFFF:016x}"
    )


def new_host_id() -> str:
    """Return a name for a host: an app in this process, from now on.

    A process that was restarted is another host, for which what its predecessor did is foreign.
    """
    name = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:32]
    return f"{name}-{os.getpid()}-{secrets.token_hex(4)}-{next(_hosts)}"
