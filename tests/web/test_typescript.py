"""TypeScript definitions of contracts: what they say, and what TypeScript makes of it."""

import datetime as dt
import enum
import os
import re
import shutil
import subprocess
import textwrap
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import msgspec
import pytest

from afresh import ComputeService, DefinitionError, compute_method
from afresh.remote.kind import COMPUTE
from afresh.rpc.contracts import REGULAR, NoWait, describe, rpc_method, rpc_service
from afresh.rpc.formats import Moment, Open, Option
from afresh.rpc.naming import DOTNET, PYTHON, NamingPolicy
from afresh.rpc.streams import RpcStream
from afresh.web.typescript import typescript_of

T = TypeVar("T")


def definitions(*contracts: type, naming: NamingPolicy = PYTHON) -> str:
    return typescript_of(describe(each, naming, (COMPUTE, REGULAR)) for each in contracts)


def own_part(text: str) -> str:
    """What is there because of the contracts: all that follows what is always there."""
    _, _, own = text.partition("open<T>(reference: StreamReference<T>")
    own = own.partition("\n  }\n")[2].removesuffix("}\n")
    return textwrap.dedent(own).strip()


def written(*contracts: type, naming: NamingPolicy = PYTHON) -> str:
    return own_part(definitions(*contracts, naming=naming))


def type_of(hint: Any) -> str:
    """What TypeScript is told that a result annotated so is."""

    class Service:
        async def get(self) -> hint: ...

    found = re.search(r"get\(\): Call<(.*)>;", written(Service))
    assert found
    return found[1]


# -- a whole file


class Status(enum.Enum):
    NEW = "new"
    PAID = "paid"


class Line(msgspec.Struct):
    item: str
    count: int = 1


class Order(msgspec.Struct):
    """An order, and what has become of it.

    Written once, never changed.
    """

    id: str
    lines: list[Line]
    status: Status = Status.NEW
    note: str | None = None


class PlaceOrder(msgspec.Struct):
    lines: tuple[Line, ...]
    note: str | None = None


class Orders(ComputeService):
    """The orders of the shop."""

    @compute_method
    async def for_user(self, user_id: str, limit: int = 10) -> tuple[Order, ...]:
        """All orders of a user, latest first."""

    async def place(self, user_id: str, command: PlaceOrder) -> Order: ...

    async def clear(self) -> None: ...

    async def changes(self) -> RpcStream[Order]: ...

    async def seen(self, order_id: str) -> NoWait: ...


ORDERS = """\
/**
 * An order, and what has become of it.
 *
 * Written once, never changed.
 */
export interface Order {
  id: string;
  lines: Line[];
  status: Status;
  note: string | null;
}

export interface Line {
  item: string;
  count: number;
}

export type Status = "new" | "paid";

export interface PlaceOrder {
  lines: Line[];
  note?: string | null;
}

/** The orders of the shop. */
export interface Orders {
  /** All orders of a user, latest first. */
  for_user(user_id: string, limit?: number): LiveCall<Order[]>;
  place(user_id: string, command: PlaceOrder): Call<Order>;
  clear(): Call<void>;
  changes(): StreamCall<Order>;
  seen(order_id: string): NoWaitCall;
}

export interface Services {
  Orders: Orders;
}"""


def test_a_file_has_the_records_and_the_services():
    assert written(Orders) == ORDERS


def test_a_file_begins_with_what_the_module_offers():
    text = definitions(Orders)
    assert text.startswith("// What afresh.js offers to pages")
    assert 'declare module "*/afresh.js" {' in text
    assert "  export function connect(" in text
    assert "  export interface Query<T = any>" in text


def test_the_same_contracts_make_the_same_file():
    assert definitions(Orders) == definitions(Orders)


def test_names_are_those_of_the_wire():
    class Clock:
        async def utc_now(self, time_zone: str) -> float: ...

        @rpc_method(name="class", cancellation_slot=False)
        async def class_(self, new: int, function: int) -> int: ...

    @rpc_service(name="eu.clock")
    class EuropeanClock(Clock): ...

    assert written(Clock, EuropeanClock, naming=DOTNET) == textwrap.dedent(
        """\
        export interface Clock {
          UtcNow(time_zone: string): Call<number>;
          /** Needs `{ methods: { class: { arity: 2 } } }` as an option of `service()`. */
          class(new_: number, function_: number): Call<number>;
        }

        export interface EuropeanClock {
          UtcNow(time_zone: string): Call<number>;
          /** Needs `{ methods: { class: { arity: 2 } } }` as an option of `service()`. */
          class(new_: number, function_: number): Call<number>;
        }

        export interface Services {
          IClock: Clock;
          "eu.clock": EuropeanClock;
        }"""
    )


def test_overloads_are_told_apart_as_typescript_does_it():
    class Calculator:
        @rpc_method(name="add")
        async def add2(self, a: int, b: int) -> int: ...

        @rpc_method(name="add")
        async def add3(self, a: int, b: int, c: int) -> int: ...

    assert "add(a: number, b: number): Call<number>;\n  add(a: number, b: " in written(Calculator)


def test_a_parameter_is_optional_only_where_all_after_it_are():
    class Service:
        async def get(self, a: int = 1, *, b: int, c: int = 2, d: str | None = None) -> int: ...

    assert "get(a: number | undefined, b: number, c?: number, d?: string | null): Call" in written(
        Service
    )


def test_a_method_whose_values_can_not_travel_is_named():
    class Service:
        async def get(self) -> Line | PlaceOrder: ...

    with pytest.raises(DefinitionError, match=r"Service\.get: .* can't travel: "):
        written(Service)


def test_two_services_can_not_have_one_name():
    @rpc_service(name="Orders")
    class Others:
        async def get(self) -> int: ...

    with pytest.raises(DefinitionError, match="two services called 'Orders'"):
        written(Orders, Others)


def test_services_that_are_named_in_different_ways_are_not_of_one_page():
    services = [describe(Feeds), describe(Everything, DOTNET)]
    with pytest.raises(DefinitionError, match="write a file for each way"):
        typescript_of(services)


def test_no_services_at_all_make_a_file_of_what_the_module_has():
    assert written() == "export interface Services {\n}"


def test_words_on_contracts_can_not_end_their_comment():
    class Service:
        async def get(self) -> int:
            """Gets */ export type Evil = 1; /*."""

    assert "/** Gets *\\/ export type Evil = 1; /*. */" in written(Service)


# -- types


UserId = NewType("UserId", str)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (bool, "boolean"),
        (int, "number"),
        (float, "number"),
        (str, "string"),
        (bytes, "string"),
        (dt.datetime, "string"),
        (dt.date, "string"),
        (dt.timedelta, "string"),
        (uuid.UUID, "string"),
        (UserId, "string"),
        (Annotated[int, msgspec.Meta(ge=0)], "number"),
        (Moment, "string"),
        (Annotated[int, msgspec.Meta(extra={"unit": "s"})], "number"),
        (Open[Line], "Line"),
        (Any, "any"),
        (object, "any"),
        (msgspec.Raw, "any"),
        (str | None, "string | null"),
        (int | float | str, "number | string"),
        (list[int], "number[]"),
        (set[str | None], "Array<string | null>"),
        (list[list[bool]], "Array<boolean[]>"),
        (list, "any[]"),
        (tuple[int, ...], "number[]"),
        (tuple[int, str | None], "[number, string | null]"),
        (dict[str, int], "Record<string, number>"),
        (dict[int, list[str]], "Record<string, string[]>"),
        (Mapping[str, Any], "Record<string, any>"),
        (dict[Status, int], "Partial<Record<Status, number>>"),
        (dict[Literal["a", "b"], int], 'Partial<Record<"a" | "b", number>>'),
        (Literal["b", "a", 2] | None, '2 | "a" | "b" | null'),
        (list[Level], "Level[]"),
        (RpcStream[int] | None, "StreamReference<number> | null"),
    ],
)
def test_a_type_is_what_it_looks_like_in_json(hint: Any, text: str):
    assert type_of(hint) == text


def record(kind: Any, *, sent: bool = False) -> str:
    """What is written for a record that is received, or only sent."""

    class Received:
        async def get(self) -> kind: ...

    class Sent:
        async def put(self, value: kind) -> None: ...

    return written(Sent if sent else Received).partition("\n\nexport interface")[0]


def test_fields_with_defaults_may_be_left_out_by_those_who_send_them():
    assert record(Line) == "export interface Line {\n  item: string;\n  count: number;\n}"
    assert (
        record(Line, sent=True) == "export interface Line {\n  item: string;\n  count?: number;\n}"
    )


def test_what_is_sent_in_one_record_and_received_in_another_is_both():
    class Batch(msgspec.Struct):
        lines: list[Line]

    class Service:
        async def put(self, batch: Batch) -> None: ...

        async def get(self) -> Line: ...

    assert "  count: number;" in written(Service)


def test_fields_that_are_not_always_written_may_be_missing():
    class Brief(msgspec.Struct, omit_defaults=True):
        a: int
        b: int = 0

    class Partly(msgspec.Struct):
        a: int | msgspec.UnsetType = msgspec.UNSET
        b: int = 0

    assert record(Brief) == "export interface Brief {\n  a: number;\n  b?: number;\n}"
    assert record(Partly) == "export interface Partly {\n  a?: number;\n  b: number;\n}"


def test_structs_are_written_with_their_tags_and_the_names_that_they_choose():
    class Circle(msgspec.Struct, tag=True, rename="camel"):
        center_point: float

    class Square(msgspec.Struct, tag_field="kind", tag=4, rename="kebab"):
        side_length: float

    assert record(Circle) == (
        'export interface Circle {\n  type: "Circle";\n  centerPoint: number;\n}'
    )
    assert record(Square) == ('export interface Square {\n  kind: 4;\n  "side-length": number;\n}')


class Pair(msgspec.Struct, array_like=True, tag="pair"):
    left: int
    right: "Pair | None" = None


class Point(NamedTuple):
    x: float
    y: float = 0


class PersonalData(msgspec.Struct):
    first_name: str
    zip: str = msgspec.field(name="ZIP")


class Options(TypedDict, total=False):
    size: int


@dataclass
class Basket:
    lines: list[Line]
    tags: set[str] = field(default_factory=set)


def test_records_that_are_arrays_in_json_are_tuples():
    assert record(Pair) == 'export type Pair = [type: "pair", left: number, right: Pair | null];'
    assert record(Point) == "export type Point = [x: number, y: number];"


def test_records_are_named_as_dotnet_peers_name_them_where_the_contract_is():
    class Service:
        async def get(self) -> tuple[PersonalData, Pair]: ...

    text = written(Service, naming=DOTNET)
    assert "{\n  firstName: string;\n  ZIP: string;\n}" in text
    assert 'export interface Pair {\n  type: "pair";\n  left: number;' in text


def test_what_always_looks_as_dotnet_has_it_does_so_here():
    _, _, text = record(Option[int]).partition("*/\n")
    assert text == (
        "export interface OptionInt {\n  hasValue: boolean;\n  valueOrDefault: number | null;\n}"
    )


def test_dataclasses_and_typed_dicts_are_records():
    assert record(Basket) == "export interface Basket {\n  lines: Line[];\n  tags: string[];\n}"
    assert record(Options) == "export interface TestTypescriptOptions {\n  size?: number;\n}"


class Page(msgspec.Struct, Generic[T]):
    items: list[T]
    next: "Page[T] | None" = None


def test_generic_records_are_written_once_for_each_type():
    class Service:
        async def numbers(self) -> Page[int]: ...

        async def orders(self) -> Page[list[Line]]: ...

    text = written(Service)
    assert "export interface PageInt {\n  items: number[];\n  next: PageInt | null;\n}" in text
    assert "export interface PageListLine {\n  items: Array<Line[]>;" in text


def test_streams_within_records_say_what_their_items_are():
    class Feed(msgspec.Struct):
        lines: RpcStream[Line]
        others: list[RpcStream[int]]

    text = record(Feed)
    assert "lines: StreamReference<Line>;" in text
    assert "others: Array<StreamReference<number>>;" in text


def test_records_of_one_name_are_kept_apart_and_do_not_touch_what_the_module_has():
    class State(msgspec.Struct):
        a: int

    class Promise(msgspec.Struct):
        b: int

    def make() -> type:
        class Line(msgspec.Struct):
            c: int

        return Line

    other = make()
    another = make()

    class Services:
        async def get(self) -> tuple[State, Promise, Line, other, another]: ...

    text = written(Services)
    assert "[TestTypescriptState, TestTypescriptPromise, Line, TestTypescriptLine, Line2]" in text
    assert "export interface TestTypescriptServices {" in text
    assert "  Services: TestTypescriptServices;" in text


# -- what TypeScript says


@pytest.fixture(scope="session")
def tsc() -> list[str]:
    """The command of TypeScript's compiler: AFRESH_TSC, or what is on the path."""
    path = os.environ.get("AFRESH_TSC") or shutil.which("tsc")
    if path is None:
        pytest.skip("TypeScript is not installed; set AFRESH_TSC to its compiler, tsc")
    return [path, "--noEmit", "--strict", "--target", "es2022", "--module", "esnext"]


PAGE = """\
import { connect, type Order, type Status } from "/afresh/afresh.js";

const hub = connect();
const orders = hub.service("Orders");

export async function page(): Promise<void> {
  const status: Status = (await orders.for_user("u1"))[0].status;
  const stop: () => void = orders.for_user("u1", 5).subscribe((list) => list.map(({ id }) => id));
  for await (const list of orders.for_user("u1")) list.length;
  const order: Order = await orders.place("u1", { lines: [{ item: "tea", count: 1 }] });
  for await (const { note } of orders.changes().stream()) note?.length;
  for await (const { item } of hub.open((await hub.service("Feeds").get()).lines)) item.length;
  await orders.clear();
  orders.seen(order.id).send();
  hub.service("Unknown").anything(1, "x").subscribe(() => 0);
  stop();
  // @ts-expect-error: a method that there is not
  orders.forUser("u1");
  // @ts-expect-error: an argument of another type
  orders.for_user(1);
  // @ts-expect-error: an argument too few
  orders.for_user();
  // @ts-expect-error: nothing to follow
  orders.clear().subscribe(() => 0);
  // @ts-expect-error: nothing to wait for
  await orders.seen("o1").then(() => 0);
  // @ts-expect-error: no such value
  status === "lost";
}
"""


class Feed(msgspec.Struct):
    lines: RpcStream[Line]


class Everything:
    async def get(self) -> Feed: ...

    async def all(
        self,
        pair: Pair,
        point: Point,
        options: Options,
        basket: Basket,
        page: Page[Line],
        level: Level,
        price: Decimal,
        default: dict[Status, dt.date] | None = None,
    ) -> tuple[int, bytes] | None: ...


@rpc_service(name="Feeds")
class Feeds(Everything): ...


def test_typescript_agrees_with_a_page_that_is_right_and_finds_what_is_not(
    tsc: list[str], tmp_path: Path
):
    (tmp_path / "services.d.ts").write_text(definitions(Orders, Everything, Feeds))
    (tmp_path / "page.ts").write_text(PAGE)
    done = subprocess.run(
        [*tsc, "services.d.ts", "page.ts"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
