"""Turns the elements that a page shows into newly built ones by changing only what differs.

A browser identifies an element by its number. A newly built element that looks like one already
shown takes over that element's number (and its listeners' identities), so the browser keeps its
DOM node: focus, the text being typed, scroll positions and a click under way survive, and only
elements that really differ are sent. Whatever has no counterpart is added or removed.

This is the one file that reaches into private parts of NiceGUI (hence the bound on its version);
when to build and what to keep is decided in `live`.
"""

from __future__ import annotations

import weakref
from collections import defaultdict, deque
from collections.abc import Collection, Hashable, Iterable, Iterator
from typing import Any

from nicegui import Client, binding, ui
from nicegui.element import Element
from nicegui.elements.choice_element import ChoiceElement
from nicegui.elements.mixins.validation_element import ValidationElement
from nicegui.elements.mixins.value_element import ValueElement
from nicegui.event_listener import EventListener

__all__ = ["Lasting", "patch", "remove"]


class Lasting(Element):
    """An element that is kept or replaced as a whole: it has no successors."""


_WITHOUT_MEMORY = (
    ui.expansion,
    ui.html,
    ui.image,
    ui.input,
    ui.link,
    ui.markdown,
    ui.select,
    ui.textarea,
)
"""Elements with a browser component of their own that follows its properties and nothing else.
Others (charts, maps, editors, tables) hold state that a successor would not know, so they are
always built anew; `keep` is for them."""

_built_with: weakref.WeakKeyDictionary[ValueElement[Any], Any] = weakref.WeakKeyDictionary()
"""The values that elements had before a visitor could touch them."""


def patch(
    client: Client,
    shown: Iterable[Element],
    built: Iterable[Element],
    kept: Collection[Element],
    *,
    unsent: bool,
) -> None:
    """Let `built` take the place of `shown`, both being the children of one slot.

    The caller puts `built` into that slot afterwards. Elements of `shown` without a successor are
    deleted.

    Args:
        client: whose page it is.
        shown: the elements to replace.
        built: their successors, not yet part of the page.
        kept: elements that are in both and stay as they are, descendants included.
        unsent: whether nothing was sent to the browser since `built` was begun. If something was,
            some of `built` may have been part of it.
    """
    _Patch(client, kept, unsent=unsent).run(list(shown), list(built))


def remove(client: Client, elements: Iterable[Element], kept: Collection[Element]) -> None:
    """Delete elements with everything in them, `kept` ones excepted."""
    if not client.is_deleted:
        client.remove_elements(list(_subtrees(elements, kept)))


class _Patch:
    def __init__(self, client: Client, kept: Collection[Element], *, unsent: bool) -> None:
        self._client = client
        self._kept = kept
        self._unsent = unsent
        self._gone: list[Element] = []
        self._before: dict[Element, dict[str, Any] | None] = {}
        self._renamed: dict[str, str] = {}

    def run(self, shown: list[Element], built: list[Element]) -> None:
        for element in _subtrees(built, self._kept):
            if isinstance(element, ValueElement):
                _built_with[element] = element.value
        self._match(shown, built)
        remove(self._client, self._gone, self._kept)
        for element in _subtrees(built, self._kept):
            self._follow_renames(element)
            if element not in self._before or element._to_dict() != self._before[element]:
                self._client.outbox.enqueue_update(element)

    def _match(self, shown: list[Element], built: list[Element]) -> None:
        candidates: defaultdict[Hashable, deque[Element]] = defaultdict(deque)
        for element in shown:
            if element not in self._kept:
                candidates[_likeness(element)].append(element)
        for element in built:
            if element not in self._kept and (alike := candidates.get(_likeness(element))):
                self._succeed(alike.popleft(), element)
        for left in candidates.values():
            self._gone.extend(left)

    def _succeed(self, old: Element, new: Element) -> None:
        # Asked now: the outbox forgets an element that nobody else holds.
        self._before[new] = None if old.id in self._client.outbox.updates else old._to_dict()
        for name, slot in old.slots.items():
            self._match(slot.children, new.slots[name].children)
        self._take_number(old, new)
        _take_listeners(old, new)
        if isinstance(old, ValueElement) and isinstance(new, ValueElement):
            _take_value(old, new)
        self._retire(old, new)

    def _take_number(self, old: Element, new: Element) -> None:
        outbox = self._client.outbox
        if self._unsent:
            outbox.updates.pop(new.id, None)
        else:
            outbox.enqueue_delete(new)
        del self._client.elements[new.id]
        for form in ("c{}", "#c{}"):  # how properties refer to elements
            self._renamed[form.format(new.id)] = form.format(old.id)
        new.id = old.id
        self._client.elements[new.id] = new

    def _retire(self, old: Element, new: Element) -> None:
        binding.remove([old])
        old._handle_delete()
        old._deleted = True
        for name, slot in old.slots.items():
            # A handler that began before this moment still adds its elements here.
            slot._parent = weakref.ref(new)
            slot.children = new.slots[name].children

    def _follow_renames(self, element: Element) -> None:
        for key, value in element._props.items():
            if isinstance(value, str) and value in self._renamed:
                with element._props.suspend_updates():
                    element._props[key] = self._renamed[value]


def _likeness(element: Element) -> Hashable:
    """What two elements must share for one to succeed the other; unique if nothing may."""
    remembers = element.component is not None and not isinstance(element, _WITHOUT_MEMORY)
    if remembers or isinstance(element, Lasting):
        return object()
    return (
        type(element),
        element.tag,
        tuple(element._markers),
        tuple((name, slot.template) for name, slot in element.slots.items()),
        tuple(_signature(listener) for listener in element._event_listeners.values()),
    )


def _signature(listener: EventListener) -> Hashable:
    return (
        listener.type,
        repr(listener.args),
        listener.js_handler,
        listener.throttle,
        listener.leading_events,
        listener.trailing_events,
    )


def _take_listeners(old: Element, new: Element) -> None:
    pairs = zip(old._event_listeners.values(), new._event_listeners.values(), strict=True)
    listeners = {}
    for old_listener, new_listener in pairs:
        new_listener.id = old_listener.id
        new_listener.element_id = new.id
        listeners[new_listener.id] = new_listener
    new._event_listeners = listeners


def _take_value(old: ValueElement[Any], new: ValueElement[Any]) -> None:
    """Keep what the user entered, unless the new rendering starts from another value."""
    if _built_with[new] == _built_with.get(old) and _accepts(new, old.value):
        # Past the property: nothing changed for the user, so no handler may run.
        new.__dict__["___value"] = old.value
        with new._props.suspend_updates():
            new._props[new.VALUE_PROP] = new._value_to_model_value(old.value)
        if isinstance(old, ValidationElement) and isinstance(new, ValidationElement):
            with new._props.suspend_updates():
                new.error = old.error
    if new._props.get(new.VALUE_PROP) == old._props.get(old.VALUE_PROP):
        # The browser may already know more than the server: it keeps what it has.
        new._client_value = old._client_value


def _accepts(element: ValueElement[Any], value: Any) -> bool:
    if not isinstance(element, ChoiceElement):
        return True
    values = value if isinstance(value, list) else [value]
    return all(each is None or each in element.options for each in values)


def _subtrees(elements: Iterable[Element], kept: Collection[Element]) -> Iterator[Element]:
    for element in elements:
        if element not in kept:
            yield element
            for slot in element.slots.values():
                yield from _subtrees(slot.children, kept)
