"""afresh on the web: the ASGI app that serves an `App`, and the module for browsers."""

from .asgi import asgi_app

__all__ = ["asgi_app"]
