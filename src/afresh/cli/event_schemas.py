"""The JSON Schema of events, for tests of those who read them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from afresh.brokers import json_schemas
from afresh.brokers.events import is_event

from .sources import CommandError, broker_of, found_at, module_at

__all__ = ["schemas_of"]


def schemas_of(sources: Iterable[str]) -> str:
    """Return the schemas of events, by their names and versions, as JSON.

    Args:
        sources: modules, or classes and apps in them.

    Raises:
        CommandError: there are none, or one can't be told as a schema.
    """
    classes = list(dict.fromkeys(cls for source in sources for cls in _events_at(source)))
    try:
        schemas = json_schemas(*classes)
    except TypeError as error:
        raise CommandError(f"There is no JSON Schema for that: {error}") from error
    return json.dumps(dict(sorted(schemas.items())), indent=2, ensure_ascii=False) + "\n"


def _events_at(source: str) -> Iterable[type]:
    if ":" not in source:
        module = module_at(source, source)
        found = [each for each in vars(module).values() if _is_event_of(each, source)]
        if not found:
            raise CommandError(f'{source} declares no events: classes with @event("…").')
        return found
    there = found_at(source)
    if isinstance(there, type):
        return [there]
    _, broker = broker_of(source)
    handled = [kind.cls for kind in broker.types]
    if not handled:
        raise CommandError(
            f"{source} handles no events; name the module of those that it publishes."
        )
    return handled


def _is_event_of(found: object, module: str) -> bool:
    """Whether something is an event of a module, or of one within it."""
    return (
        isinstance(found, type)
        and is_event(found)
        and f"{found.__module__}.".startswith(f"{module}.")
    )
