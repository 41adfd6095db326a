"""Which web pages may connect: rules about the `Origin` that browsers send.

A browser lets any page open a WebSocket to any host, and sends along the cookies that it has for
that host. What keeps a foreign page from acting in the name of a user who looks at it is this
check. Programs other than browsers need not tell the truth about their origin, or send none at all,
so it is no substitute for signing in.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

__all__ = ["OriginRule", "allow_origins", "any_origin", "same_host"]

OriginRule = Callable[[str, str], bool]
"""Whether a page may connect: a function of its origin, such as "https://shop.example", and of the
request's `Host` header. It is not asked when there is no origin."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


def same_host(origin: str, host: str) -> bool:
    """Allow pages of the host and port that the request itself is for: the default.

    The scheme does not matter, since a proxy may do the encryption. Behind a proxy that changes the
    `Host` header, list the origins with `allow_origins`.
    """
    page = _authority(origin)
    if page is None:
        return False
    scheme, name, port = page
    server = _authority(f"{scheme}://{host}")
    return server is not None and server[1:] == (name, port)


def any_origin(origin: str, host: str) -> bool:
    """Allow every page. Safe only where a connection that anybody's page opened may do no harm."""
    return True


def allow_origins(*origins: str) -> OriginRule:
    """Allow the listed pages only.

    Args:
        origins: such as "https://shop.example" or "http://localhost:8080"; "null" for pages that
            have no origin of their own (files, sandboxed frames).

    Raises:
        ValueError: one of them is no origin.
    """
    allowed = set()
    for origin in origins:
        authority = _authority(origin)
        if authority is None and origin != "null":
            raise ValueError(
                f"{origin!r} is no origin; write scheme, host and, if need be, port, as in "
                '"https://shop.example".'
            )
        allowed.add(authority or origin)

    def is_allowed(origin: str, host: str) -> bool:
        return (_authority(origin) or origin) in allowed

    return is_allowed


def _authority(origin: str) -> tuple[str, str, int] | None:
    """Scheme, host in lower case, and port; None for anything but the origin of a web page."""
    try:
        parts = urlsplit(origin)
        scheme, name, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        return None
    if scheme not in _DEFAULT_PORTS or not name or parts.path or parts.query or parts.fragment:
        return None
    if "@" in parts.netloc:
        return None
    return scheme, name, _DEFAULT_PORTS[scheme] if port is None else port
