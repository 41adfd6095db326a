"""A new rendering changes what differs, and leaves alone what a visitor is busy with."""

import asyncio
import gc
from collections.abc import Callable

import pytest
from nicegui import Client, binding, json, ui
from nicegui.element import Element
from nicegui.testing import User

from afresh.ui.nicegui import keep, live

from .conftest import Numbers, Visit, sees, until


def numbers_of(user: User, kind: type[Element]) -> list[int]:
    """Which elements of a kind the browser has, by number."""
    assert user.client is not None
    return [each.id for each in user.client.layout.descendants() if type(each) is kind]


async def test_elements_that_stay_alike_keep_their_number(visit: Visit, numbers: Numbers) -> None:
    @live
    async def body() -> None:
        with ui.card():
            ui.label("always")
            ui.label(str(await numbers.get("a")))
            ui.button("Press")

    async with visit(body) as user:
        await sees(user, "always", "0", "Press")
        before = [numbers_of(user, kind) for kind in (ui.card, ui.label, ui.button)]
        numbers.set("a", 1)
        await sees(user, "always", "1", "Press")
        assert [numbers_of(user, kind) for kind in (ui.card, ui.label, ui.button)] == before


async def test_only_what_differs_is_sent(visit: Visit, numbers: Numbers) -> None:
    @live
    async def body() -> None:
        with ui.card():
            ui.label("always").classes("quiet")
            ui.input("Name")
            value = await numbers.get("a")
            await asyncio.sleep(0.05)  # long enough for the outbox
            ui.label(str(value)).classes("loud")

    async with visit(body) as user:
        await until(lambda: numbers_of(user, ui.input))
        assert user.client is not None
        outbox = user.client.outbox
        await until(lambda: not outbox.updates)
        sent: set[int] = set()
        emit = outbox._emit

        async def record(message: tuple[str, str, dict[str, object]]) -> None:
            _, kind, data = message
            if kind == "update":
                sent.update(int(key) for key, value in data.items() if value and key != "_id")
            await emit(message)

        outbox._emit = record  # type: ignore[method-assign]
        numbers.set("a", 1)
        await until(lambda: sent)
        await asyncio.sleep(0.1)
        kinds = {type(user.client.elements[number]).__name__ for number in sent}
        assert kinds == {"Label", "LiveBody"}


async def test_what_was_not_sent_before_a_rendering_is_sent_after_it(
    visit: Visit, numbers: Numbers
) -> None:
    @live
    async def body() -> None:
        with ui.card():
            ui.label("always")
            ui.label(str(await numbers.get("a")))

    async with visit(body) as user:
        await user.http_client.get("/")  # a browser that is slow to connect
        *_, user.client = Client.instances.values()
        await sees(user, "always", "0")
        numbers.set("a", 1)
        await sees(user, "always", "1")
        gc.collect()
        for kind in (ui.card, ui.label):
            assert set(numbers_of(user, kind)) <= set(user.client.outbox.updates)


async def test_what_a_visitor_typed_is_kept(visit: Visit, numbers: Numbers) -> None:
    heard: list[str | None] = []

    @live
    async def body() -> None:
        ui.label(str(await numbers.get("a")))
        with ui.row():
            name = ui.input("Name", on_change=lambda event: heard.append(event.value))
            ui.button("Greet", on_click=lambda: ui.notify(f"Hello {name.value}"))

    async with visit(body) as user:
        await sees(user, "0", "Greet")
        user.find(ui.input).type("Ada")
        for value in (1, 2):
            numbers.set("a", value)
            await sees(user, str(value), "Greet")
            (field,) = user.find(ui.input).elements
            assert field.value == "Ada"
        assert heard == ["Ada"]
        user.find("Greet").click()
        await user.should_see("Hello Ada")
        user.find(ui.input).type(" Lovelace")
        assert heard == ["Ada", "Ada Lovelace"]


async def test_what_the_browser_knows_better_is_not_overwritten(
    visit: Visit, numbers: Numbers
) -> None:
    """Between the server's word and its arrival, the visitor may have typed on."""

    @live
    async def body() -> None:
        ui.input(f"Name {await numbers.get('a')}")

    async with visit(body) as user:
        await user.should_see(ui.input)
        (field,) = user.find(ui.input).elements
        (listener,) = field._event_listeners.values()
        typed = {"id": field.id, "listener_id": listener.id, "args": [json.dumps("Ada")]}
        field.client.handle_event(typed)
        numbers.set("a", 1)
        await user.should_see("Name 1")
        (field,) = user.find(ui.input).elements
        assert field.value == "Ada"
        assert field._to_dict()["preserved_props"] == ["value"]


async def test_bindings_of_replaced_elements_are_dropped(visit: Visit, numbers: Numbers) -> None:
    source = {"text": "bound"}

    @live
    async def body() -> None:
        ui.label(str(await numbers.get("a")))
        ui.label().bind_text_from(source, "text")

    async with visit(body) as user:
        await sees(user, "0", "bound")
        before = len(binding.active_links)
        numbers.set("a", 1)
        await sees(user, "1", "bound")
        assert len(binding.active_links) == before
        source["text"] = "changed"
        await sees(user, "1", "changed")


@pytest.mark.parametrize(
    ("build", "entered"),
    [
        (lambda: ui.number("Count", value=1), 5.0),
        (lambda: ui.textarea("Notes"), "long"),
        (lambda: ui.checkbox("Agreed"), True),
        (lambda: ui.switch("On"), True),
        (lambda: ui.slider(min=0, max=9, value=1), 4),
        (lambda: ui.select(["a", "b"], value="a"), "b"),
        (lambda: ui.select(["a", "b"], value=["a"], multiple=True), ["a", "b"]),
        (lambda: ui.radio({1: "one", 2: "two"}, value=1), 2),
        (lambda: ui.toggle(["a", "b"], value="a"), "b"),
        (lambda: ui.expansion("More"), True),
        (lambda: ui.rating(value=1), 3),
    ],
)
async def test_whatever_a_visitor_entered_is_kept(
    visit: Visit, numbers: Numbers, build: Callable[[], ui.element], entered: object
) -> None:
    @live
    async def body() -> None:
        ui.label(str(await numbers.get("a"))).mark("number")
        build().mark("field")

    async with visit(body) as user:
        await user.should_see(marker="field")
        (field,) = user.find(marker="field").elements
        field.set_value(entered)  # type: ignore[attr-defined]
        model = field.props[field.VALUE_PROP]  # type: ignore[attr-defined]
        numbers.set("a", 1)
        await user.should_see(marker="number", content="1")
        (successor,) = user.find(marker="field").elements
        assert successor is not field
        assert successor.id == field.id
        assert successor.value == entered  # type: ignore[attr-defined]
        assert successor.props[field.VALUE_PROP] == model  # type: ignore[attr-defined]


async def test_a_rendering_that_starts_from_another_value_wins(
    visit: Visit, numbers: Numbers
) -> None:
    @live
    async def body() -> None:
        ui.input("Number", value=str(await numbers.get("a")))

    async with visit(body) as user:
        await user.should_see(ui.input)
        user.find(ui.input).clear().type("mine")
        numbers.set("a", 1)
        await user.should_see(kind=ui.input, content="1")


async def test_a_choice_that_is_gone_is_not_kept(visit: Visit, numbers: Numbers) -> None:
    numbers.values = {"a": 1, "b": 2}

    @live
    async def body() -> None:
        ui.select(sorted(await numbers.names()), value="a")

    async with visit(body) as user:
        await user.should_see(ui.select)
        (select,) = user.find(ui.select).elements
        select.set_value("b")
        del numbers.values["b"]
        numbers.names.invalidate()
        await until(lambda: user.find(ui.select).elements != {select})
        (select,) = user.find(ui.select).elements
        assert select.value == "a"


async def test_a_shown_complaint_about_an_input_stays(visit: Visit, numbers: Numbers) -> None:
    @live
    async def body() -> None:
        ui.label(str(await numbers.get("a")))
        ui.input("Name", validation={"Too short": lambda value: len(value) > 2})

    async with visit(body) as user:
        await sees(user, "0")
        user.find(ui.input).type("A")
        numbers.set("a", 1)
        await sees(user, "1")
        (field,) = user.find(ui.input).elements
        assert field.error == "Too short"


async def test_marked_elements_are_recognized_where_they_moved(
    visit: Visit, numbers: Numbers
) -> None:
    numbers.values = {"b": 0, "c": 0}

    @live
    async def body() -> None:
        for name in sorted(await numbers.names()):
            ui.input(name).mark(f"field-{name}")

    async with visit(body) as user:
        await user.should_see(marker="field-b")
        user.find(marker="field-b").type("for b")
        numbers.set("a", 0)
        await user.should_see(marker="field-a")
        values = {name: user.find(marker=f"field-{name}").elements.pop().value for name in "abc"}
        assert values == {"a": "", "b": "for b", "c": ""}


async def test_an_element_made_in_a_rendering_refers_to_another_by_its_final_number(
    visit: Visit, numbers: Numbers
) -> None:
    @live
    async def body() -> None:
        target = ui.label(str(await numbers.get("a")))
        ui.link("jump", target)
        ui.input("Name")

    async with visit(body) as user:
        await user.should_see(ui.link)
        numbers.set("a", 1)
        await sees(user, "1", "jump")
        (label,) = user.find(ui.label).elements
        (link,) = user.find(ui.link).elements
        (field,) = user.find(ui.input).elements
        assert link.props["href"] == f"#{label.html_id}"
        assert field.props["for"] == field.html_id


async def test_an_element_with_a_memory_in_the_browser_is_built_anew(
    visit: Visit, numbers: Numbers
) -> None:
    @live
    async def body() -> None:
        ui.label(str(await numbers.get("a")))
        ui.echart({"series": []})

    async with visit(body) as user:
        await sees(user, "0")
        (before,) = numbers_of(user, ui.echart)
        numbers.set("a", 1)
        await sees(user, "1")
        assert numbers_of(user, ui.echart) != [before]


async def test_keep_builds_once_and_moves_with_the_rendering(
    visit: Visit, numbers: Numbers
) -> None:
    built = 0

    def chart() -> ui.echart:
        nonlocal built
        built += 1
        return ui.echart({"series": []})

    @live
    async def body() -> None:
        value = await numbers.get("a")
        for _ in range(value):
            ui.label("above")
        with ui.card():
            keep("chart", chart).options["series"] = [value]

    async with visit(body) as user:
        await user.should_see(ui.echart)
        (kept,) = user.find(ui.echart).elements
        for value in (2, 1):
            numbers.set("a", value)
            await sees(user, *["above"] * value)
            assert user.find(ui.echart).elements == {kept}
            assert kept.options["series"] == [value]
            assert kept.parent_slot is not None
            assert isinstance(kept.parent_slot.parent, ui.card)
            assert not kept.is_deleted
        assert built == 1


async def test_what_is_no_longer_kept_is_deleted_and_built_again_later(
    visit: Visit, numbers: Numbers
) -> None:
    numbers.values = {"a": 1}

    @live
    async def body() -> None:
        value = await numbers.get("a")
        ui.label(str(value))
        if value:
            keep("note", lambda: ui.textarea("Note"))

    async with visit(body) as user:
        await user.should_see(ui.textarea)
        (first,) = user.find(ui.textarea).elements
        numbers.set("a", 0)
        await sees(user, "0")
        assert first.is_deleted
        numbers.set("a", 2)
        await sees(user, "2")
        (second,) = user.find(ui.textarea).elements
        assert second is not first


async def test_a_failing_run_leaves_what_is_kept_in_place(visit: Visit, numbers: Numbers) -> None:
    @live
    async def body() -> None:
        field = keep("note", lambda: ui.textarea("Note"))
        ui.label(f"{await numbers.get('a')} {field.value}")

    async with visit(body) as user:
        await sees(user, "0 ")
        (field,) = user.find(ui.textarea).elements
        numbers.break_down()
        await user.should_see("Could not update")
        assert user.find(ui.textarea).elements == {field}
        field.set_value("kept")
        numbers.values["a"] = 1
        numbers.break_down(False)
        await sees(user, "1 kept")
        assert user.find(ui.textarea).elements == {field}


async def test_parts_inside_of_what_is_kept_follow_on(visit: Visit, numbers: Numbers) -> None:
    @live
    async def inner() -> None:
        ui.label(f"b {await numbers.get('b')}")

    def card() -> ui.card:
        with ui.card() as card:
            inner()
        return card

    @live
    async def body() -> None:
        ui.label(f"a {await numbers.get('a')}")
        keep("card", card)

    async with visit(body) as user:
        await sees(user, "a 0", "b 0")
        numbers.set("a", 1)
        await sees(user, "a 1", "b 0")
        numbers.set("b", 1)
        await sees(user, "a 1", "b 1")
        numbers.set("a", 2)
        await sees(user, "a 2", "b 1")


def two_labels() -> ui.label:
    ui.label("one")
    return ui.label("two")


@pytest.mark.parametrize(
    ("keeping", "complaint"),
    [
        (lambda: [keep("x", ui.label), keep("x", ui.label)], "twice in one rendering"),
        (lambda: keep("x", two_labels), "builds one element"),
        (lambda: keep("x", lambda: None), "builds one element"),  # type: ignore[type-var]
    ],
)
async def test_bad_use_of_keep_is_explained(
    visit: Visit, keeping: Callable[[], object], complaint: str
) -> None:
    @live
    async def body() -> None:
        keeping()

    async with visit(body) as user:
        await user.should_see(complaint)


def test_keep_outside_of_a_live_function_is_refused() -> None:
    with pytest.raises(RuntimeError, match="inside a @live function"):
        keep("x", ui.label)
