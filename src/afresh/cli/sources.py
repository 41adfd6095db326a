"""Finds what a command is about: an app, or whatever else stands in a module."""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from afresh.app import App
from afresh.errors import InvalidStateError

if TYPE_CHECKING:
    from afresh.brokers import Broker

__all__ = ["CommandError", "app_at", "broker_of", "found_at", "module_at"]


class CommandError(Exception):
    """The command can't be carried out; the text is for the person who gave it."""


def app_at(source: str) -> App:
    """Return the app at a place; a function there that takes nothing is called to make it.

    Raises:
        CommandError: there is none.
    """
    found = found_at(source)
    if inspect.isfunction(found):
        try:
            found = found()
        except TypeError as error:
            raise CommandError(f"{source} can't be called to make an App: {error}.") from error
    if not isinstance(found, App):
        raise CommandError(f"{source} is no App, but a {type(found).__name__}.")
    return found


def broker_of(source: str) -> tuple[App, Broker]:
    """Return the app at a place, and its broker.

    Raises:
        CommandError: there is no app, or it has none.
    """
    app = app_at(source)
    try:
        return app, app.broker
    except InvalidStateError as error:
        raise CommandError(f"{source}: {error}") from error


def found_at(source: str) -> Any:
    """Return what stands at a place.

    Args:
        source: "shop.app:app" for example.

    Raises:
        CommandError: nothing does.
    """
    module_name, _, path = source.partition(":")
    if not module_name or not path:
        raise CommandError(f"{source!r} is no place: write module:name, shop.app:app for example.")
    found: Any = module_at(module_name, source)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise CommandError(f"{source}: there is no {name!r} in {module_name}.") from None
    return found


def module_at(name: str, source: str) -> ModuleType:
    """Return a module, as `python -m` would find it.

    Args:
        name: of the module.
        source: as the person wrote it.

    Raises:
        CommandError: there is none.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` finds modules: from where it is called
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise CommandError(
            f"{source}: there is no module {error.name!r} here; call afresh from the folder that "
            "the modules are in, in the environment that they run in."
        ) from error
