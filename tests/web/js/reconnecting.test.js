import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { connect } from "../../../src/afresh/web/static/afresh.js";
import { FakeServer, settle } from "./fake.js";

let server, hub, orders;

beforeEach(async () => {
  server = new FakeServer();
  hub = await server.connected();
  orders = hub.service("Orders");
});

afterEach(() => server.end());

const brief = ({ method, id, args }) => [method, id, ...args];

/** Break the connection, and let the page come back; what it then sends, after the handshake. */
async function bounce(milliseconds = 1000) {
  server.socket.drop();
  await server.pass(milliseconds);
  const [hello, ...rest] = server.take();
  assert.equal(hello.method, "$sys.Handshake:1");
  return rest;
}

test("it comes back as the same peer, and counts its handshakes", async () => {
  const first = server.hello.args[0];
  const url = server.socket.url.href;
  server.socket.drop();
  await server.pass(200);
  const second = server.one().args[0];
  assert.deepEqual(second, { ...first, Index: 2 });
  assert.equal(server.socket.url.href, url);
});

test("nothing is sent before the server has introduced itself", async () => {
  server.greets = false;
  server.socket.drop();
  hub.call("A", "a");
  await server.pass(200);
  assert.equal(server.one().method, "$sys.Handshake:1");
  server.socket.greet();
  assert.equal(server.one().method, "A.a:1");
});

test("a connection that starts with anything else is given up", async () => {
  server.greets = false;
  server.socket.drop();
  await server.pass(200);
  const odd = server.socket;
  server.ok(1, 1);
  assert.equal(odd.isClosed, true);
  await server.pass(300);
  assert.notEqual(server.socket, odd);
});

test("the handshake may have members in camel case, and a secret", async () => {
  server.greets = false;
  server.socket.drop();
  const call = hub.call("A", "a");
  await server.pass(200);
  const hello = {
    remotePeerId: server.guid,
    remoteHubId: server.guid,
    protocolVersion: 2,
    index: 9,
  };
  server.send("$sys.Handshake:1", 0, {
    ...hello,
    remoteApiVersionSet: { value: "Api=1.0" },
    secret: "x",
  });
  server.ok(1, "fine");
  assert.equal(await call, "fine");
});

test("calls made while offline wait, and are sent before anything else", async () => {
  const running = hub.call("A", "running");
  await settle();
  server.take();
  server.socket.drop();
  const waiting = hub.call("A", "waiting", 5);
  const sent = await bounce();
  assert.deepEqual(sent.map(brief), [
    ["A.waiting:2", 2, 5],
    ["$sys.Reconnect:3", 3, 2, { 0: "AQ==", 1: "" }],
  ]);
  server.ok(2, "w");
  server.ok(1, "r");
  assert.deepEqual(await Promise.all([running, waiting]), ["r", "w"]);
});

test("a call that the server still knows is not sent again", async () => {
  const call = hub.call("A", "slow");
  await settle();
  server.take();
  const [reconnect] = await bounce();
  server.ok(reconnect.id, "");
  assert.deepEqual(server.take(), []);
  server.ok(1, "done");
  assert.equal(await call, "done");
});

test("a call that the server does not know any more is sent again, unchanged", async () => {
  const call = hub.call("A", "slow", "x");
  await settle();
  const [before] = server.take();
  const [reconnect] = await bounce();
  server.ok(reconnect.id, "AQ==");
  assert.equal(server.one().text, before.text);
  server.ok(1, "done");
  assert.equal(await call, "done");
});

test("of many calls, those are sent again that the server names", async () => {
  const calls = Array.from({ length: 300 }, (_, index) => hub.call("A", "a", index));
  await settle();
  server.take();
  for (let id = 1; id <= 300; id++) if (![3, 4, 10, 200].includes(id)) server.ok(id, 0);
  const [reconnect] = await bounce();
  assert.deepEqual(reconnect.args, [2, { 0: "AwEGvgE=", 1: "" }]);
  server.ok(reconnect.id, "Cr4B");
  assert.deepEqual(
    server.take().map(({ id }) => id),
    [10, 200],
  );
  for (const id of [3, 4, 10, 200]) server.ok(id, 0);
  await Promise.all(calls);
});

test("if the server refuses to reconcile, everything is sent again", async () => {
  hub.call("A", "a");
  hub.call("A", "b");
  await settle();
  server.take();
  const [reconnect] = await bounce();
  server.fail(reconnect.id, "ActualLab.Rpc.RpcException, ActualLab.Rpc", "Too late");
  assert.deepEqual(
    server.take().map(({ id }) => id),
    [1, 2],
  );
});

test("an answer may overtake the reconciliation", async () => {
  const call = hub.call("A", "a");
  await settle();
  server.take();
  const [reconnect] = await bounce();
  server.ok(1, "done");
  server.ok(reconnect.id, "AQ==");
  assert.equal(await call, "done");
  assert.deepEqual(server.take(), []);
});

test("a connection that breaks while reconciling starts over on the next one", async () => {
  const call = hub.call("A", "a");
  await settle();
  server.take();
  await bounce();
  const [again, ...rest] = await bounce();
  assert.deepEqual(brief(again), ["$sys.Reconnect:3", 3, 3, { 0: "AQ==", 1: "" }]);
  assert.deepEqual(rest, []);
  server.ok(2, ""); // of the first attempt; nobody listens
  server.ok(3, "AQ==");
  assert.equal(server.one().id, 1);
  server.ok(1, 1);
  assert.equal(await call, 1);
});

test("after a restart of the server, calls are sent again", async () => {
  const call = hub.call("A", "a");
  await settle();
  server.take();
  server.guid = "0f8fad5b-d9cb-469f-a165-70867728950e";
  const [again, ...rest] = await bounce();
  assert.deepEqual([again.method, again.id, rest], ["A.a:1", 1, []]);
  server.ok(1, 1);
  assert.equal(await call, 1);
});

test("a call that must not run twice fails rather than be sent again", async () => {
  const pay = () =>
    hub
      .call("Bank", "pay")
      .with({ resend: false })
      .catch((error) => error);
  const first = pay();
  await settle();
  server.take();
  let [reconnect] = await bounce();
  server.ok(reconnect.id, "");
  server.ok(1, "paid"); // it was known
  assert.equal(await first, "paid");
  const second = pay();
  await settle();
  server.take();
  [reconnect] = await bounce();
  server.ok(reconnect.id, reconnect.args[1][0]);
  assert.equal((await second).typeName, "DisconnectedError");
  const third = pay();
  await settle();
  server.take();
  server.guid = "0f8fad5b-d9cb-469f-a165-70867728950e";
  assert.deepEqual(await bounce(), []);
  assert.equal((await third).typeName, "DisconnectedError");
});

test("a value is kept while reconnecting; if the server knows the call, nothing is asked", async () => {
  const values = [];
  orders.total().subscribe((value) => values.push(value));
  server.ok(server.one().id, 1);
  const [reconnect] = await bounce();
  assert.deepEqual(reconnect.args, [2, { 0: "", 1: "AQ==" }]);
  server.ok(reconnect.id, "");
  await server.pass(1000);
  assert.deepEqual(server.take(), []);
  assert.deepEqual(orders.total().current, { value: 1 });
  server.invalidate(1);
  await server.pass(250);
  server.ok(server.one().id, 2);
  assert.deepEqual(values, [1, 2]);
});

test("a value that went stale meanwhile is asked for again", async () => {
  const values = [];
  orders.total().subscribe((value) => values.push(value));
  server.ok(server.one().id, 1);
  const [reconnect] = await bounce();
  server.ok(reconnect.id, "AQ==");
  await server.pass(250);
  const { id, type } = server.one();
  assert.equal(type, 1);
  server.ok(id, 5);
  assert.deepEqual(values, [1, 5]);
});

test("after a restart of the server, values are asked for again, and missing ones at once", async () => {
  const values = [];
  orders.total().subscribe((value) => values.push(value));
  orders.ids().subscribe((value) => values.push(value));
  server.ok(server.take()[0].id, 1);
  server.guid = "0f8fad5b-d9cb-469f-a165-70867728950e";
  const [missing, stale, ...none] = await bounce();
  assert.deepEqual(brief(missing), ["Orders.ids:1", 2]);
  assert.deepEqual(brief(stale), ["Orders.total:1", 3]);
  assert.deepEqual(none, []);
  server.ok(2, [7]);
  server.ok(3, 0);
  assert.deepEqual(values, [1, [7], 0]);
});

test("who leaves while offline is not forgotten by the server: it is told later", async () => {
  const stop = orders.total().subscribe(() => 0);
  server.ok(server.one().id, 1);
  const unsent = await (async () => {
    server.socket.drop();
    return orders.ids().subscribe(() => 0);
  })();
  stop();
  unsent();
  const sent = await bounce();
  assert.deepEqual(sent.map(brief), [["$sys.Cancel:0", 1]]);
  assert.deepEqual(await bounce(), []);
  server.guid = "0f8fad5b-d9cb-469f-a165-70867728950e";
  assert.deepEqual(await bounce(), []);
});

test("it waits longer from failure to failure, up to ten seconds, give or take", async () => {
  const waits = [];
  server.isUp = false;
  server.socket.drop();
  for (let failure = 0; failure < 20; failure++) {
    const count = server.sockets.length;
    const before = Date.now();
    while (server.sockets.length === count) await server.pass(10, 10);
    waits.push(Date.now() - before);
  }
  waits.forEach((wait, failure) => {
    const expected = Math.min(10_000, 100 * Math.SQRT2 ** failure);
    assert(wait >= 0.9 * expected - 10 && wait <= 1.1 * expected + 20, `${failure}: ${wait}`);
  });
  assert(new Set(waits.slice(-6)).size > 1, `no jitter: ${waits}`);
});

test("only a connection that lasted starts the count of failures anew", async () => {
  for (let round = 0; round < 10; round++) {
    server.socket.drop();
    await server.pass(3000);
  }
  server.socket.drop();
  await server.pass(2500);
  assert.equal(hub.state.isConnected, false);
  await server.pass(2000);
  assert.equal(hub.state.isConnected, true);
  await server.pass(15_000);
  server.socket.drop();
  await server.pass(150, 10);
  assert.equal(hub.state.isConnected, true);
});

test("a server that does not answer in ten seconds is tried again, before and after it opens", async () => {
  server.isUp = undefined;
  server.socket.drop();
  await server.pass(200);
  const silent = server.socket;
  await server.pass(9700);
  assert.equal(silent.isClosed, false);
  await server.pass(300);
  assert.equal(silent.isClosed, true);
  server.isUp = true;
  server.greets = false;
  await server.pass(300);
  const mute = server.socket;
  assert.equal(mute.isOpen, true);
  await server.pass(10_000);
  assert.equal(mute.isClosed, true);
});

test("a server has ten seconds to take the connection, and ten to introduce itself", async () => {
  server.isUp = undefined;
  server.socket.drop();
  await server.pass(200);
  await server.pass(8000);
  server.socket.isOpen = true;
  server.socket.onopen();
  await server.pass(8000);
  server.socket.greet();
  assert.equal(hub.state.isConnected, true);
  assert.equal(hub.state.error, undefined);
});

test("it shows every ten seconds that it is there", async () => {
  await server.pass(35_000);
  const { beats } = server.socket;
  assert.equal(beats.length, 3);
  assert.deepEqual(beats.map(brief), Array(3).fill(["$sys.KeepAlive:1", 0, []]));
});

test("a server of which nothing is heard for 25 seconds is given up", async () => {
  server.isAlive = false;
  const silent = server.socket;
  await server.pass(20_000);
  server.send("$sys.KeepAlive:1", 0, []);
  await server.pass(24_900);
  assert.equal(silent.isClosed, false);
  await server.pass(150);
  assert.equal(silent.isClosed, true);
  assert.match(hub.state.error.message, /No answer/);
  await server.pass(300);
  assert.equal(hub.state.isConnected, true);
});

test("where timers come late, what is heard makes it show that it is there", async () => {
  // A page in the background: its clock goes on, its timers do not run.
  mock.timers.setTime(Date.now() + 12_000);
  server.send("$sys.KeepAlive:1", 0, []);
  assert.equal(server.socket.beats.length, 1);
  server.send("$sys.KeepAlive:1", 0, []);
  assert.equal(server.socket.beats.length, 1);
});

test("what comes late on an old connection is not for the new one", async () => {
  const call = hub.call("A", "a");
  await settle();
  server.isAlive = false;
  const old = server.socket;
  await server.pass(26_000);
  assert.notEqual(server.socket, old);
  old.deliver('{"Method":"$sys.Ok:1","RelatedId":1}\n"old"');
  old.onclose?.({ code: 1006, reason: "" });
  assert.equal(hub.state.isConnected, true);
  server.ok(1, "new");
  assert.equal(await call, "new");
});

test("a refusal with code 4001 is final: all fails, and nothing is tried again", async () => {
  const call = hub.call("A", "a").catch((error) => error);
  const errors = [];
  orders.total().subscribe(() => 0, { onError: (error) => errors.push(error.message) });
  await settle();
  server.socket.drop(4001, "Unsupported RPC serialization format: 'json5np'");
  assert.match((await call).message, /4001 Unsupported/);
  assert.match(errors[0], /4001 Unsupported/);
  assert.deepEqual([hub.state.isFinal, hub.state.text], [true, "Disconnected."]);
  assert.equal(hub.state.reconnectsIn, 0);
  await server.pass(60_000, 1000);
  assert.equal(server.sockets.length, 1);
  const late = hub.call("A", "a").catch((error) => error);
  assert.match((await late).message, /4001/);
});

test("after a refusal it can still be told to try, and values come back", async () => {
  const values = [];
  orders.total().subscribe((value) => values.push(value), { onError: () => values.push("error") });
  server.take();
  server.socket.drop(4001);
  const late = orders.ids().subscribe((value) => values.push(value), { onError: () => 0 });
  hub.reconnect();
  await settle();
  const [, ...sent] = server.take();
  assert.deepEqual(
    sent.map(({ method }) => method),
    ["Orders.ids:1", "$sys.Reconnect:3"],
  );
  server.ok(sent[1].id, "AQ==");
  server.ok(server.one().id, 1);
  server.ok(sent[0].id, 2);
  assert.deepEqual(values, ["error", 1, 2]);
  late();
});

test("told to reconnect, it does not wait", async () => {
  server.isUp = false;
  server.socket.drop();
  await server.pass(5000);
  server.isUp = true;
  hub.reconnect();
  hub.reconnect();
  await settle();
  assert.equal(hub.state.isConnected, true);
  hub.reconnect();
  const count = server.sockets.length;
  await server.pass(1000);
  assert.equal(server.sockets.length, count);
});

test("there is one hub for an address", async () => {
  assert.equal(connect("ws://shop.test/rpc/ws"), hub);
  assert.equal(connect(new URL("http://shop.test/rpc/ws")), hub);
  hub.close();
  assert.notEqual(await server.connected(), hub);
});

test("a message that is too big for the server fails, and the rest goes on", async () => {
  const big = hub.call("A", "a", "x".repeat(1000)).catch((error) => error);
  const small = hub.call("A", "b", "y");
  await settle();
  server.take();
  server.socket.drop(1009, "frame too big");
  assert.match((await big).message, /1009 frame too big/);
  await server.pass(1000);
  const [, reconnect, ...rest] = server.take();
  assert.deepEqual(brief(reconnect), ["$sys.Reconnect:3", 3, 2, { 0: "Ag==", 1: "" }]);
  assert.deepEqual(rest, []);
  server.ok(2, "done");
  assert.equal(await small, "done");
});
