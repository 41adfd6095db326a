"""Results of remote compute methods, kept on the client.

A client that starts again has something to show at once, while the server is asked whether it is
still right; a client that lost its connection goes on with what it had.

```python
async with connect("ws://localhost:8000/rpc/ws", cache="client.db") as client:
    ...
```
"""

from .entry import CacheEntry, CacheKey
from .memory import MemoryCache
from .remote_cache import RemoteCache
from .shared import SharedCache, open_cache
from .sqlite import SqliteCache

__all__ = [
    "CacheEntry",
    "CacheKey",
    "MemoryCache",
    "RemoteCache",
    "SharedCache",
    "SqliteCache",
    "open_cache",
]
