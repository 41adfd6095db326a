import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { FakeServer, frame, settle } from "./fake.js";

const HOST = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
const NOBODY = "00000000-0000-0000-0000-000000000000";

let server, hub;

beforeEach(async () => {
  server = new FakeServer();
  hub = await server.connected();
});

afterEach(() => server.end());

const brief = ({ method, id, args }) => [method, id, ...args];

/** Read a stream in the background, and note what comes. */
function read(items, { limit = Infinity, hold = () => undefined } = {}) {
  const all = [];
  const end = (async () => {
    for await (const each of items) {
      all.push(each);
      if (all.length >= limit) break;
      await hold(each);
    }
    return "over";
  })().catch((error) => error.message);
  return { all, end };
}

/** Have the server answer with a stream; what the page answers to that. */
async function open(options = "30,61,1,0", localId = 3) {
  await settle();
  server.ok(server.one().id, `${HOST},${localId},${options}`);
  await settle();
  return server.take().map(brief);
}

test("nothing is called before somebody reads", async () => {
  const items = hub.stream("Ticks", "all", 5);
  await settle();
  assert.deepEqual(server.take(), []);
  read(items);
  await settle();
  assert.deepEqual(brief(server.one()), ["Ticks.all:2", 1, 5]);
});

test("items come one by one and in batches, until the end", async () => {
  const { all, end } = read(hub.stream("Ticks", "all"));
  assert.deepEqual(await open(), [["$sys.Ack:2", 3, 0, HOST]]);
  server.send("$sys.I:2", 3, 0, "a");
  server.send("$sys.B:2", 3, 1, ["b", null, "d"]);
  await settle();
  assert.deepEqual(all, ["a", "b", null, "d"]);
  server.send("$sys.I:2", 3, 4, "e");
  server.send("$sys.End:2", 3, 5, { TypeRef: "", Message: "" });
  assert.equal(await end, "over");
  assert.deepEqual(all, ["a", "b", null, "d", "e"]);
  assert.deepEqual(server.take().map(brief), [["$sys.AckEnd:1", 3, HOST]]);
});

test("it tells what it has read, each time a period is full", async () => {
  let go;
  const { all } = read(hub.stream("Ticks", "all"), {
    hold: (each) => each === 4 && new Promise((resolve) => (go = resolve)),
  });
  await open("3,7,1,0");
  server.send("$sys.B:2", 3, 0, [0, 1, 2, 3, 4, 5, 6]);
  await settle();
  assert.deepEqual(server.take().map(brief), [["$sys.Ack:2", 3, 3, NOBODY]]);
  go();
  await settle();
  assert.deepEqual(server.take().map(brief), [["$sys.Ack:2", 3, 6, NOBODY]]);
  assert.equal(all.length, 7);
});

test("an error ends it, after what came before", async () => {
  const { all, end } = read(hub.stream("Ticks", "all"));
  await open();
  server.socket.deliver(
    [
      frame("$sys.I:2", 3, 0, 1),
      frame("$sys.End:2", 3, 1, { TypeRef: "ShopError", Message: "Closed" }),
    ].join("\n\x1e"),
  );
  assert.equal(await end, "Closed");
  assert.deepEqual(all, [1]);
});

test("who leaves early lets the server know", async () => {
  const { end } = read(hub.stream("Ticks", "all"), { limit: 2 });
  await open();
  server.send("$sys.B:2", 3, 0, [1, 2, 3]);
  assert.equal(await end, "over");
  assert.deepEqual(server.take().map(brief), [["$sys.AckEnd:1", 3, HOST]]);
  server.send("$sys.I:2", 3, 3, 4);
  assert.deepEqual(server.take(), []);
});

test("a signal ends it, also while it waits for the next item or for the stream itself", async () => {
  const control = new AbortController();
  const { signal } = control;
  const running = read(hub.call("Ticks", "all").with({ signal }).stream());
  await open();
  const starting = read(hub.call("Ticks", "all").with({ signal }).stream());
  await settle();
  server.take();
  control.abort(new Error("enough"));
  assert.deepEqual([await running.end, await starting.end], ["enough", "enough"]);
  assert.deepEqual(server.take().map(brief).sort(), [
    ["$sys.AckEnd:1", 3, HOST],
    ["$sys.Cancel:0", 2],
  ]);
});

test("what was read already is not read again, and a gap is asked for", async () => {
  const { all } = read(hub.stream("Ticks", "all"));
  await open();
  server.send("$sys.B:2", 3, 0, [0, 1, 2]);
  server.send("$sys.B:2", 3, 1, [1, 2, 3]);
  server.send("$sys.I:2", 3, 0, 0);
  await settle();
  assert.deepEqual(all, [0, 1, 2, 3]);
  server.send("$sys.I:2", 3, 6, 6);
  assert.deepEqual(server.take().map(brief), [["$sys.Ack:2", 3, 4, HOST]]);
  server.send("$sys.End:2", 3, 9, { TypeRef: "", Message: "" });
  assert.deepEqual(server.take().map(brief), [["$sys.Ack:2", 3, 4, HOST]]);
  server.send("$sys.B:2", 3, 4, [4, 5, 6]);
  await settle();
  assert.deepEqual(all, [0, 1, 2, 3, 4, 5, 6]);
});

test("after a reconnect it goes on where it was, and its keep-alives name it", async () => {
  const { all, end } = read(hub.stream("Ticks", "all"));
  await open();
  server.send("$sys.B:2", 3, 0, [0, 1]);
  await server.pass(10_000);
  assert.deepEqual(server.socket.beats[0].args, [[3]]);
  server.take();
  server.socket.drop();
  await server.pass(1000);
  const [, ...sent] = server.take().map(brief);
  assert.deepEqual(sent, [["$sys.Ack:2", 3, 2, HOST]]);
  server.send("$sys.B:2", 3, 1, [1, 2]);
  server.send("$sys.End:2", 3, 3, { TypeRef: "", Message: "" });
  assert.equal(await end, "over");
  assert.deepEqual(all, [0, 1, 2]);
});

test("a stream that can't be resumed fails with the connection, after what came", async () => {
  const { all, end } = read(hub.stream("Ticks", "all"));
  await open("30,61,0,0");
  server.send("$sys.B:2", 3, 0, [0, 1]);
  server.socket.drop();
  assert.match(await end, /disconnected/);
  assert.deepEqual(all, [0, 1]);
});

test("a stream that can't be resumed fails at a gap", async () => {
  const { end } = read(hub.stream("Ticks", "all"));
  await open("30,61,0,0");
  server.send("$sys.I:2", 3, 5, 5);
  assert.match(await end, /disconnected/);
});

test("a stream of a server that was restarted fails, and the new one hears nothing of it", async () => {
  const { end } = read(hub.stream("Ticks", "all"));
  await open();
  server.guid = "0f8fad5b-d9cb-469f-a165-70867728950e";
  server.socket.drop();
  await server.pass(1000);
  assert.match(await end, /disconnected/);
  assert.deepEqual(server.take().slice(1), []);
});

test("a stream that the server has lost fails", async () => {
  const { end } = read(hub.stream("Ticks", "all"));
  await open();
  server.send("$sys.Disconnect:1", 0, [1, 2, 3]);
  assert.match(await end, /disconnected/);
});

test("more than was asked for is refused", async () => {
  const { end } = read(hub.stream("Ticks", "all"), { hold: () => new Promise(() => 0) });
  await open("3,7,1,0");
  for (let index = 0; index < 40; index++) server.send("$sys.I:2", 3, index, index);
  assert.deepEqual(server.take().map(brief), [["$sys.AckEnd:1", 3, HOST]]);
  await Promise.race([end, settle()]);
});

test("a new stream takes the number of an old one that was forgotten", async () => {
  const old = read(hub.stream("Ticks", "all"));
  await open();
  const next = read(hub.stream("Ticks", "all"));
  assert.deepEqual(await open(), [["$sys.Ack:2", 3, 0, HOST]]);
  assert.match(await old.end, /disconnected/);
  server.send("$sys.I:2", 3, 0, "new");
  await settle();
  assert.deepEqual(next.all, ["new"]);
  assert.deepEqual(server.take(), []);
});

test("two flags may be missing from a reference", async () => {
  const { all } = read(hub.stream("Ticks", "all"));
  assert.deepEqual(await open("30,61"), [["$sys.Ack:2", 3, 0, HOST]]);
  server.send("$sys.I:2", 3, 0, 1);
  server.socket.drop();
  await server.pass(1000);
  server.send("$sys.I:2", 3, 1, 2);
  await settle();
  assert.deepEqual(all, [1, 2]);
});

test("a result that is no stream can't be read as one", async () => {
  for (const result of ["1,2,3", "", "not a stream", { SerializedId: [1] }, 5, null]) {
    const { end } = read(hub.stream("Ticks", "all"));
    await settle();
    server.ok(server.one().id, result);
    assert.match(await end, /no stream/);
  }
});

test("a stream within a value is opened by its reference", async () => {
  const { all } = read(hub.open(`${HOST},9,30,61,1,0`));
  await settle();
  assert.deepEqual(brief(server.one()), ["$sys.Ack:2", 9, 0, HOST]);
  server.send("$sys.I:2", 9, 0, "x");
  await settle();
  assert.deepEqual(all, ["x"]);
});

test("the method's error is the stream's", async () => {
  const { end } = read(hub.stream("Ticks", "all"));
  await settle();
  server.fail(1, "ShopError", "Closed today");
  assert.equal(await end, "Closed today");
});
