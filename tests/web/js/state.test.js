import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { connect } from "../../../src/afresh/web/static/afresh.js";
import { FakeServer, settle } from "./fake.js";

let server, page;

beforeEach(() => {
  server = new FakeServer();
  page = new EventTarget();
  globalThis.addEventListener = page.addEventListener.bind(page);
});

afterEach(() => {
  server.end();
  delete globalThis.addEventListener;
});

const happens = (type, more) => page.dispatchEvent(Object.assign(new Event(type), more));
const brief = ({ kind, text }) => [kind, text];

test("the state goes from connecting to connected, and says when it has just changed", async () => {
  const hub = server.hub();
  assert.deepEqual(brief(hub.state), ["just-disconnected", "Connecting..."]);
  assert.deepEqual([hub.state.isConnected, hub.state.likelyConnected], [false, true]);
  await settle();
  assert.deepEqual(brief(hub.state), ["just-connected", "Just connected."]);
  await server.pass(1450);
  assert.deepEqual(brief(hub.state), ["just-connected", "Just connected."]);
  await server.pass(50);
  assert.deepEqual(brief(hub.state), ["connected", "Connected."]);
  assert.deepEqual([hub.state.isConnected, hub.state.error], [true, undefined]);
});

test("without a connection it says so after three seconds, and when it will try again", async () => {
  const hub = await server.connected();
  await server.pass(5000);
  server.isUp = undefined;
  server.socket.drop(1006);
  assert.deepEqual(brief(hub.state), ["just-disconnected", "Just disconnected, reconnecting..."]);
  assert.deepEqual([hub.state.isConnected, hub.state.likelyConnected], [false, true]);
  await server.pass(3000);
  assert.deepEqual(brief(hub.state), ["disconnected", "Reconnecting..."]); // an attempt runs
  assert.deepEqual([hub.state.likelyConnected, hub.state.reconnectsIn], [false, 0]);
  server.isUp = false;
  server.socket.drop(1006);
  while (hub.state.reconnectsIn < 2000) await server.pass(50);
  assert.equal(hub.state.text, "Disconnected.");
  assert.match(hub.state.error.message, /1006/);
  const { reconnectsIn } = hub.state;
  await server.pass(500);
  assert.equal(hub.state.reconnectsIn, reconnectsIn - 500);
  while (hub.state.reconnectsIn > 999) await server.pass(50);
  assert.equal(hub.state.text, "Reconnecting...");
});

test("a server that was never there is told apart from one that went away", async () => {
  server.isUp = false;
  const hub = server.hub();
  await server.pass(2900);
  assert.deepEqual(brief(hub.state), ["just-disconnected", "Connecting..."]);
  await server.pass(7000);
  assert.equal(hub.state.kind, "disconnected");
});

test("who watches hears of each state, now and in time, until it stops", async () => {
  const hub = server.hub();
  const seen = [];
  const stop = hub.onState(({ text }) => seen.at(-1) !== text && seen.push(text));
  assert.deepEqual(seen, ["Connecting..."]);
  await server.pass(2000);
  server.socket.drop();
  await server.pass(2000);
  assert.deepEqual(seen, [
    "Connecting...",
    "Just connected.",
    "Connected.",
    "Just disconnected, reconnecting...",
    "Just connected.",
    "Connected.",
  ]);
  stop();
  server.socket.drop();
  await server.pass(5000);
  assert.equal(seen.length, 6);
});

test("it counts down for those who watch, and is at rest when it is connected", async () => {
  const hub = await server.connected();
  await server.pass(2000);
  let calls = 0;
  let last;
  hub.onState((state) => {
    calls++;
    last = state;
  });
  await server.pass(5000);
  assert.equal(calls, 1);
  server.isUp = false;
  server.socket.drop();
  const seconds = new Set();
  calls = 0;
  for (let step = 0; step < 600; step++) {
    await server.pass(50);
    seconds.add(Math.ceil(last.reconnectsIn / 1000));
  }
  for (const second of [1, 2, 3, 4, 5, 6, 7, 8, 9]) assert(seconds.has(second), `no ${second}`);
  assert(calls <= 5 * 30, `${calls} calls in 30 s`);
});

test("what a watcher throws is no trouble to the connection or to others", async () => {
  const complaints = server.complaints();
  const hub = server.hub();
  hub.onState(() => {
    throw new Error("in the page");
  });
  let state;
  hub.onState((each) => (state = each));
  await settle();
  assert.equal(state.isConnected, true);
  assert(complaints.length > 0);
});

test("a clock that was set does not confuse the state for long", async () => {
  const hub = await server.connected();
  await server.pass(5000);
  mock.timers.setTime(Date.now() - 3_600_000);
  assert.equal(hub.state.kind, "connected");
  const { socket } = server;
  server.send("$sys.KeepAlive:1", 0, []);
  await server.pass(60_000, 500);
  assert.equal(hub.state.isConnected, true);
  assert.equal(server.socket, socket);
});

test("a page that was asleep does not trust its connection", async () => {
  const hub = await server.connected();
  const old = server.socket;
  mock.timers.setTime(Date.now() + 60_000); // nothing ran meanwhile
  happens("visibilitychange");
  await settle();
  assert.equal(old.isClosed, true);
  assert.notEqual(server.socket, old);
  assert.equal(hub.state.isConnected, true);
});

test("a page that was hidden for a moment keeps its connection", async () => {
  await server.connected();
  await server.pass(9000);
  happens("visibilitychange");
  happens("online");
  happens("pageshow");
  await server.pass(1000);
  assert.equal(server.sockets.length, 1);
});

test("when the network is back, it does not wait any longer", async () => {
  const hub = await server.connected();
  server.isUp = false;
  server.socket.drop();
  await server.pass(30_000);
  while (hub.state.reconnectsIn < 5000) await server.pass(50);
  server.isUp = true;
  happens("online");
  await settle();
  assert.equal(hub.state.isConnected, true);
});

test("a page that is left closes its connection, and opens it when the visitor comes back", async () => {
  const hub = await server.connected();
  const call = hub.call("A", "a");
  await settle();
  const old = server.socket;
  happens("pagehide", { persisted: true });
  assert.equal(old.isClosed, true);
  await server.pass(20_000);
  assert.equal(server.sockets.length, 1);
  happens("pageshow");
  await settle();
  assert.deepEqual(
    server.take().map(({ method }) => method),
    ["$sys.Handshake:1", "$sys.Reconnect:3"],
  );
  server.ok(1, "done");
  assert.equal(await call, "done");
});

test("a page that is left for good takes leave of the server", async () => {
  const hub = await server.connected();
  hub.call("A", "a");
  const stop = hub.call("A", "b").subscribe(() => 0);
  await settle();
  server.take();
  happens("pagehide", { persisted: false });
  assert.deepEqual(
    server.take().map(({ method, id }) => [method, id]),
    [
      ["$sys.Cancel:0", 1],
      ["$sys.Cancel:0", 2],
    ],
  );
  assert.equal(server.socket.isClosed, true);
  stop();
});

test("a page that was refused stays so, whatever happens", async () => {
  const hub = await server.connected();
  server.socket.drop(4001);
  for (const type of ["online", "visibilitychange", "pageshow"]) happens(type);
  await server.pass(1000);
  assert.equal(server.sockets.length, 1);
  assert.equal(hub.state.isFinal, true);
});

test("who watches hears at once of an attempt, and of the last word", async () => {
  const hub = await server.connected();
  server.isUp = false;
  server.socket.drop();
  await server.pass(30_000);
  while (hub.state.reconnectsIn < 5000) await server.pass(50);
  const seen = [];
  hub.onState(({ text, isFinal }) => seen.push([text, isFinal]));
  server.isUp = undefined;
  hub.reconnect();
  assert.deepEqual(seen.at(-1), ["Reconnecting...", false]);
  server.socket.drop(4001);
  assert.deepEqual(seen.at(-1), ["Disconnected.", true]);
});

test("a closed hub has let go of the page", async () => {
  const started = mock.method(globalThis, "setInterval");
  const ended = mock.method(globalThis, "clearInterval");
  const hub = await server.connected();
  hub.close();
  assert.equal(started.mock.callCount(), 1);
  assert.equal(ended.mock.calls[0].arguments[0], started.mock.calls[0].result);
  for (const type of ["online", "visibilitychange", "pageshow", "pagehide"]) happens(type);
  await server.pass(60_000, 1000);
  assert.equal(server.sockets.length, 1);
});

test("a closed hub leaves no timer behind", async () => {
  const hub = await server.connected();
  mock.timers.reset(); // from here on time is real
  const timers = () => process.getActiveResourcesInfo().filter((each) => each === "Timeout").length;
  const before = timers();
  const own = server.hub("ws://own.test/rpc/ws", { timeout: 60_000 });
  own.onState(() => 0);
  const call = own.call("A", "a");
  own.call("A", "b").subscribe(() => 0, { onError: () => 0, delay: 60_000 });
  await settle();
  const [, value, request] = server.take();
  server.ok(value.id, 1);
  server.invalidate(value.id);
  server.ok(request.id, 1);
  await call;
  assert(timers() > before);
  own.close();
  assert.equal(timers(), before);
  hub.close();
});

test("the address is that of the page's host, unless it is given", async () => {
  globalThis.location = { href: "https://shop.test:8443/a/page.html?x=1" };
  try {
    for (const [url, expected] of [
      [undefined, "wss://shop.test:8443/rpc/ws"],
      ["/live/rpc/ws", "wss://shop.test:8443/live/rpc/ws"],
      ["ws/", "wss://shop.test:8443/a/ws/"],
      ["http://other.test/rpc/ws?session=s1", "ws://other.test/rpc/ws?session=s1"],
    ]) {
      const hub = connect(url);
      const { href } = server.socket.url;
      const [clean] = href.split(/[?&]clientId=/);
      assert.equal(clean, expected);
      hub.close();
    }
  } finally {
    delete globalThis.location;
  }
});
