"""Where the pages of the demo are, so that each can link to the others."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from afresh import ComputeService, compute_method

_VARIABLE = "SHOP_PLACES"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page is, on whichever host the visitor reached."""

    port: int
    path: str = "/"


class Places(ComputeService):
    @compute_method
    @abstractmethod
    async def all(self) -> dict[str, Place]:
        """By "page", "plain", "flow" and the names of departments, as far as they are there."""


class KnownPlaces(Places):
    """Those that are known from the start.

    Args:
        places: by name; those that the environment tells of unless given.
    """

    def __init__(self, places: Mapping[str, Place] | None = None) -> None:
        if places is None:
            told = os.environ.get(_VARIABLE, "{}")
            places = msgspec.json.decode(told, type=dict[str, Place])
        self._places = dict(places)

    @compute_method
    async def all(self) -> dict[str, Place]:
        return self._places


def tell_places(places: Mapping[str, Place]) -> None:
    """Tell processes that are started from here on, by their environment."""
    os.environ[_VARIABLE] = msgspec.json.encode(places).decode()
