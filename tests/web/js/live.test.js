import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { afterEach, beforeEach, test } from "node:test";

import { FakeServer, settle } from "./fake.js";

let server, hub, orders;

beforeEach(async () => {
  server = new FakeServer();
  hub = await server.connected();
  orders = hub.service("Orders");
});

afterEach(() => server.end());

/** Follow a query, and note what comes. */
function follow(query, options) {
  const values = [];
  const errors = [];
  const stop = query.subscribe((value) => values.push(value), {
    onError: (error) => errors.push(error.message),
    ...options,
  });
  return { values, errors, stop };
}

/** The newest request that came; it must be a compute call. */
function request() {
  const { id, type } = server.one();
  assert.equal(type, 1);
  return id;
}

test("a subscription gets the value, and the next one after the server said it is stale", async () => {
  const { values } = follow(orders.for_user("u1"));
  const { method, id, type, args } = server.one();
  assert.deepEqual([method, id, type, args], ["Orders.for_user:2", 1, 1, ["u1"]]);
  await settle();
  assert.deepEqual(server.take(), []); // it is no ordinary call as well
  server.ok(1, ["a"]);
  assert.deepEqual(values, [["a"]]);
  server.invalidate(1);
  await server.pass(250);
  assert.equal(request(), 2);
  server.ok(2, ["a", "b"]);
  assert.deepEqual(values, [["a"], ["a", "b"]]);
});

test("an update waits for the delay, and takes all changes until then together", async () => {
  const { values } = follow(orders.total(), { delay: 1000 });
  server.ok(request(), 1);
  server.invalidate(1);
  await server.pass(950);
  assert.deepEqual(server.take(), []);
  await server.pass(50);
  server.ok(request(), 5);
  assert.deepEqual(values, [1, 5]);
});

test("of several delays the shortest counts", async () => {
  follow(orders.total(), { delay: 1000 });
  const { stop } = follow(orders.total(), { delay: 100 });
  server.ok(request(), 1);
  server.invalidate(1);
  await server.pass(100);
  server.ok(request(), 2);
  stop();
  server.invalidate(2);
  await server.pass(950);
  assert.deepEqual(server.take(), []);
  await server.pass(50);
  request();
});

test("equal values are not announced twice", async () => {
  const { values } = follow(orders.total());
  server.ok(request(), { sum: 1 });
  const first = orders.total().current;
  server.invalidate(1);
  await server.pass(250);
  server.ok(request(), { sum: 1 });
  assert.deepEqual(values, [{ sum: 1 }]);
  assert.equal(orders.total().current, first);
});

test("all who follow the same share one call, which ends with the last of them", async () => {
  const first = follow(orders.for_user("u1"));
  const second = follow(orders.for_user("u1"));
  const other = follow(orders.for_user("u2"));
  assert.deepEqual(
    server.take().map(({ id, args }) => [id, args]),
    [
      [1, ["u1"]],
      [2, ["u2"]],
    ],
  );
  server.ok(1, "one");
  server.ok(2, "two");
  const late = follow(orders.for_user("u1"));
  assert.deepEqual(late.values, []); // not before it can end it
  await settle();
  assert.deepEqual([first.values, second.values, late.values], [["one"], ["one"], ["one"]]);
  assert.deepEqual(other.values, ["two"]);
  first.stop();
  late.stop();
  first.stop();
  assert.deepEqual(server.take(), []);
  second.stop();
  const { method, id } = server.one();
  assert.deepEqual([method, id], ["$sys.Cancel:0", 1]);
  server.invalidate(1);
  await server.pass(1000);
  assert.deepEqual(server.take(), []);
  follow(orders.for_user("u1"));
  assert.equal(request(), 3);
});

test("who left before the first value hears nothing", async () => {
  const { values, stop } = follow(orders.total());
  const id = request();
  stop();
  assert.equal(server.one().method, "$sys.Cancel:0");
  server.ok(id, 1);
  await settle();
  assert.deepEqual(values, []);
});

test("who leaves while an update waits ends the wait", async () => {
  const { stop } = follow(orders.total());
  server.ok(request(), 1);
  server.invalidate(1);
  stop();
  await server.pass(1000);
  assert.deepEqual(server.take(), []);
});

test("an error is delivered to those who want it, and the next value mends it", async () => {
  const { values, errors } = follow(orders.total());
  server.ok(request(), 1);
  server.invalidate(1);
  await server.pass(250);
  server.fail(request(), "ShopError", "Sold out");
  assert.deepEqual([values, errors], [[1], ["Sold out"]]);
  assert.equal(orders.total().current.error.typeName, "ShopError");
  server.invalidate(2);
  await server.pass(1000);
  server.ok(request(), 1);
  assert.deepEqual([values, errors], [[1, 1], ["Sold out"]]);
});

test("an error that nobody wants to hear of goes to the console", async () => {
  const complaints = server.complaints();
  orders.total().subscribe(() => assert.fail());
  server.fail(request(), "ShopError", "Sold out");
  assert.equal(complaints[0][0].message, "Sold out");
});

test("the longer it fails, the longer it waits: one second, two, four, up to a minute", async () => {
  const { errors } = follow(orders.total());
  for (const seconds of [1, 2, 4, 8, 16, 32, 60, 60]) {
    const id = request();
    server.fail(id, "ShopError", "Sold out");
    server.invalidate(id);
    await server.pass(seconds * 1000 - 50);
    assert.deepEqual(server.take(), []);
    await server.pass(50);
  }
  assert.deepEqual(errors, ["Sold out"]);
});

test("an error of one subscriber is his own", async () => {
  const complaints = server.complaints();
  orders.total().subscribe(() => {
    throw new Error("in the page");
  });
  const { values } = follow(orders.total());
  server.ok(request(), 1);
  await settle();
  assert.deepEqual(values, [1]);
  assert.equal(complaints[0][0].message, "in the page");
});

test("what leaves while it is told does not disturb the others", async () => {
  const seen = [];
  const stop = orders.total().subscribe((value) => {
    seen.push(["first", value]);
    stop();
  });
  orders.total().subscribe((value) => seen.push(["second", value]));
  const id = request();
  server.ok(id, 1);
  server.invalidate(id);
  await server.pass(250);
  server.ok(request(), 2);
  assert.deepEqual(seen, [
    ["first", 1],
    ["second", 1],
    ["second", 2],
  ]);
});

test("what ends another subscription while it is told spares that one the news", async () => {
  const seen = [];
  orders.total().subscribe(() => stop());
  const stop = orders.total().subscribe((value) => seen.push(value));
  server.ok(request(), 1);
  const late = follow(orders.total());
  late.stop();
  await settle();
  assert.deepEqual([seen, late.values], [[], []]);
});

test("a call that the server gave up before it answered is made again", async () => {
  const { values } = follow(orders.total());
  server.invalidate(request());
  await server.pass(950);
  assert.deepEqual(server.take(), []);
  await server.pass(50);
  server.ok(request(), 1);
  assert.deepEqual(values, [1]);
});

test("an aborted signal ends a subscription", async () => {
  const control = new AbortController();
  const { values } = follow(orders.total(), { signal: control.signal });
  server.ok(request(), 1);
  control.abort();
  assert.equal(server.one().method, "$sys.Cancel:0");
  const none = follow(orders.total(), { signal: control.signal });
  await settle();
  assert.deepEqual(
    server.take().map(({ method }) => method),
    ["Orders.total:1", "$sys.Cancel:0"],
  );
  assert.deepEqual([values, none.values], [[1], []]);
});

test("a signal that lasts is let go of by what has ended", async () => {
  const { signal } = new AbortController();
  const { stop } = follow(orders.total(), { signal });
  const loop = orders.ids().with({ signal })[Symbol.asyncIterator]();
  const first = loop.next();
  const call = orders.place().with({ signal }).then(String);
  await settle();
  for (const { id } of server.take()) server.ok(id, 1);
  await Promise.all([first, call]);
  assert.notEqual(getEventListeners(signal, "abort").length, 0);
  stop();
  await loop.return();
  assert.equal(getEventListeners(signal, "abort").length, 0);
});

test("what is said not to be a compute method can't be followed", () => {
  const service = hub.service("Orders", { methods: { place: { compute: false } } });
  assert.throws(() => service.place().subscribe(() => 0), /Orders\.place:1 is no compute method/);
});

test("a loop gets the values, the newest only when it is slow", async () => {
  const seen = [];
  const loop = (async () => {
    for await (const value of orders.total()) {
      seen.push(value);
      if (value === 1) await new Promise((resolve) => setTimeout(resolve, 2000));
      if (value === 4) break;
    }
    return "over";
  })();
  await settle();
  for (const value of [1, 2, 3, 4]) {
    const id = request();
    server.ok(id, value);
    if (value < 4) {
      server.invalidate(id);
      await server.pass(250);
    }
  }
  await server.pass(2000);
  assert.equal(await loop, "over");
  assert.deepEqual(seen, [1, 4]);
  assert.equal(server.one().method, "$sys.Cancel:0");
});

test("a loop ends with an error of the method, or of its signal", async () => {
  const control = new AbortController();
  const read = async (query) => {
    for await (const value of query) assert.equal(value, 1);
  };
  const failing = read(orders.total()).catch((error) => error.message);
  const aborted = read(orders.ids().with({ signal: control.signal })).catch((error) => error.name);
  await settle();
  const [first, second] = server.take();
  server.fail(first.id, "ShopError", "Sold out");
  server.ok(second.id, 1);
  assert.equal(await failing, "Sold out");
  control.abort();
  assert.equal(await aborted, "AbortError");
  assert.deepEqual(
    server.take().map(({ method, id }) => [method, id]),
    [
      ["$sys.Cancel:0", 1],
      ["$sys.Cancel:0", 2],
    ],
  );
});

test("own calls hurry updates along, also for a moment after", async () => {
  const { values } = follow(orders.total(), { delay: 60_000 });
  server.ok(request(), 1);
  server.invalidate(1);
  await server.pass(1000);
  const place = orders.place("u1");
  await settle();
  const [update, command] = server.take();
  assert.deepEqual([update.method, update.type], ["Orders.total:1", 1]);
  assert.equal(command.method, "Orders.place:2");
  server.ok(update.id, 2);
  server.invalidate(update.id); // by the call that runs
  await server.pass(50);
  const next = request();
  server.ok(command.id, 7);
  assert.equal(await place, 7);
  server.ok(next, 3);
  await server.pass(200);
  server.invalidate(next);
  await server.pass(50);
  const last = request();
  server.ok(last, 4);
  assert.deepEqual(values, [1, 2, 3, 4]);
  await server.pass(300);
  const idle = orders.place("u1");
  await settle();
  server.ok(server.one().id, 8); // nothing is stale, so nothing is asked for
  await idle;
  await server.pass(300);
  server.invalidate(last);
  await server.pass(59_000, 500);
  assert.deepEqual(server.take(), []);
  await server.pass(1000);
  request();
  await server.pass(60_000, 500);
  assert.deepEqual(server.take(), []);
});

test("a call that only reads does not hurry anything", async () => {
  follow(orders.total(), { delay: 5000 });
  server.ok(request(), 1);
  server.invalidate(1);
  const service = hub.service("Orders", { methods: { ids: { compute: true } } });
  const ids = service.ids().then((value) => value);
  await settle();
  assert.equal(server.one().type, 0);
  server.ok(2, []);
  await ids;
  assert.deepEqual(server.take(), []);
});

test("what is known of a value can be looked at, for frameworks that ask for snapshots", async () => {
  const query = hub.service("Orders", { compute: true }).total();
  assert.equal(query.current, undefined);
  let changes = 0;
  const stop = query.subscribe(() => changes++);
  server.ok(request(), 1);
  assert.deepEqual(query.current, { value: 1 });
  assert.equal(query.current, query.current);
  assert.equal(changes, 1);
  stop();
  assert.equal(query.current, undefined);
});
