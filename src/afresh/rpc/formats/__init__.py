"""Wire formats: bytes into messages, and argument sections into values, and back.

Four formats are built in: `json5np` and `json5` (text, for browsers and people), `msgpack6` and
`msgpack6c` (binary; the latter names methods by hashes and is the shortest and fastest). Nothing
here knows of connections or peers.
"""

from .codec import NO_DEFAULT, Codec
from .format import Format, FrameError, Headers, Incoming, Writer
from .hashes import method_hash, result_hash
from .naming import RecordNaming
from .registry import get_format

__all__ = [
    "NO_DEFAULT",
    "Codec",
    "Format",
    "FrameError",
    "Headers",
    "Incoming",
    "RecordNaming",
    "Writer",
    "get_format",
    "method_hash",
    "result_hash",
]
