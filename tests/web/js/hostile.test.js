import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { FakeServer, frame, settle } from "./fake.js";

const HOST = "7c9e6679-7425-40de-944b-e07fc1f90ae7";

let server, hub;

beforeEach(async () => {
  server = new FakeServer();
  hub = await server.connected();
});

afterEach(() => server.end());

/** Numbers that are the same in each run. */
function random(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state % below;
  };
}

const METHODS = [
  ..."Ok:1 Error:1 Cancel:0 M:0 KeepAlive:1 Disconnect:1 Ack:2 AckEnd:1 I:2 B:2 End:2".split(" "),
  ..."Handshake:1 Reconnect:3 Unknown:4".split(" "),
].map((each) => `$sys.${each}`);
METHODS.push("$sys-c.Invalidate:0", "Page.call:1", "", "$sys.");

const VALUES = [
  null,
  0,
  1,
  -1,
  2.5,
  1e300,
  "",
  "x",
  "AQ==",
  [],
  [1],
  {},
  { TypeRef: 5 },
  [[], null],
  true,
];

test("whatever a server says, the page goes on", async () => {
  server.complaints();
  const next = random(7);
  const one = (values) => values[next(values.length)];
  for (let round = 0; round < 150; round++) {
    const service = hub.service("A");
    const calls = [1, 2, 3].map((each) => service.call(each).catch(() => 0));
    service.value(round).subscribe(() => 0);
    (async () => {
      for await (const each of hub.open(`${HOST},${(round % 3) + 1},30,61,1,0`)) void each;
    })().catch(() => 0);
    await settle();
    const ids = server.take().map(({ id }) => id);
    for (let message = 0; message < 40; message++) {
      const args = Array.from({ length: next(4) }, () => one(VALUES));
      let text = frame(one(METHODS), one([0, 1, 2, 3, -1, "1", null, ...ids]), ...args);
      for (let cut = next(4); cut === 0; cut = next(2)) {
        const at = next(text.length + 1);
        text =
          text.slice(0, at) +
          one(["", "\x1f", "\n\x1e", "{", "]", "\n", "\0"]) +
          text.slice(at + 1);
      }
      server.socket.deliver(text);
    }
    server.take();
    const sane = hub.call("A", "sane");
    await settle();
    const request = server.take().find(({ method }) => method === "A.sane:1");
    server.ok(request.id, round);
    assert.equal(await sane, round);
    for (const id of ids) server.ok(id);
    await Promise.all(calls);
  }
});

test("a handshake that makes no sense leaves the page waiting for another", async () => {
  server.complaints();
  for (const hello of [null, [], 5, "x"]) {
    server.greets = false;
    server.socket.drop();
    await server.pass(5000);
    server.send("$sys.Handshake:1", 0, hello);
    server.greets = true;
    await server.pass(30_000);
    assert.equal(hub.state.isConnected, true);
  }
});

test("messages that are no text are told, and not more", async () => {
  const complaints = server.complaints();
  for (const data of [new Uint8Array([1, 2]), new Blob(["x"]), undefined])
    server.socket.deliver(data);
  assert.equal(complaints.length, 3);
  const call = hub.call("A", "a");
  await settle();
  server.ok(server.one().id, 1);
  assert.equal(await call, 1);
});

test("who calls from within an answer gets an answer", async () => {
  const seen = [];
  hub.call("A", "value").subscribe(async (value) => {
    seen.push(value);
    seen.push(await hub.call("A", "next", value));
  });
  server.ok(server.one().id, 1);
  await settle();
  const { id, args } = server.one();
  assert.deepEqual(args, [1]);
  server.ok(id, 2);
  await settle();
  assert.deepEqual(seen, [1, 2]);
});

test("ten thousand values followed and left leave nothing behind", async () => {
  const stops = [];
  for (let round = 0; round < 10; round++) {
    for (let each = 0; each < 1000; each++)
      stops.push(hub.call("A", "value", each).subscribe(() => 0));
    const requests = server.take();
    assert.equal(requests.length, 1000);
    for (const { id } of requests) server.ok(id, id);
    for (const stop of stops.splice(0)) stop();
    assert.equal(server.take().filter(({ method }) => method === "$sys.Cancel:0").length, 1000);
  }
  server.socket.drop();
  await server.pass(1000);
  assert.deepEqual(
    server.take().map(({ method }) => method),
    ["$sys.Handshake:1"],
  );
});
