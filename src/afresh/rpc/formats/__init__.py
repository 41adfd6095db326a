"""Wire formats: bytes into messages, and argument sections into values, and back.

Four formats are there: `json5np` and `json5` (text, for browsers and people), `msgpack6` and
`msgpack6c` (binary; the latter names methods by hashes and is the shortest and fastest). Those that
are binary have variants with compressed frames. Nothing here knows of connections or peers.
"""

from .codec import Codec
from .format import Compression, Format, FrameError, Headers, Incoming, Writer
from .hashes import method_hash, result_hash
from .naming import RecordNaming
from .open_types import Open, register_open_type
from .registry import get_format
from .shapes import Option, Result, VersionSet
from .slots import NO_DEFAULT
from .times import Moment

__all__ = [
    "NO_DEFAULT",
    "Codec",
    "Compression",
    "Format",
    "FrameError",
    "Headers",
    "Incoming",
    "Moment",
    "Open",
    "Option",
    "RecordNaming",
    "Result",
    "VersionSet",
    "Writer",
    "get_format",
    "method_hash",
    "register_open_type",
    "result_hash",
]
