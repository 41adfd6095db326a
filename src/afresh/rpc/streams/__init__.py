"""Streams: sequences of values that cross the wire as they come, in either direction.

A stream has an owner, which reads the source and sends, and a consumer, which reads what arrives.
What crosses the wire inside a call is a reference only; items follow once the consumer begins to
read, within a window that it moves on by acknowledging what it has read. `RpcStream` is both ends
to the user; each peer keeps the inner sides of them in a `StreamTable`.
"""

from .stream import RpcStream

__all__ = ["RpcStream"]
