import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { RpcError } from "../../../src/afresh/web/static/afresh.js";
import { FakeServer, frame, settle } from "./fake.js";

let server, hub;

beforeEach(async () => {
  server = new FakeServer();
  hub = await server.connected();
});

afterEach(() => server.end());

test("the first message introduces the page", () => {
  const { method, id, args } = server.hello;
  assert.deepEqual([method, id], ["$sys.Handshake:1", 0]);
  const { RemotePeerId, RemoteHubId, ...rest } = args[0];
  assert.deepEqual(rest, { RemoteApiVersionSet: null, ProtocolVersion: 2, Index: 1 });
  assert.match(RemotePeerId, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  assert.equal(RemoteHubId, RemotePeerId);
  const { searchParams, pathname } = server.socket.url;
  assert.equal(pathname, "/rpc/ws");
  assert.equal(searchParams.get("f"), "json5np");
  // The client id is the GUID's bytes in .NET order.
  const bytes = Buffer.from(searchParams.get("clientId"), "base64url").toString("hex");
  const [a, b, c, ...last] = RemotePeerId.split("-");
  const turned = [a, b, c].map((each) => each.match(/../g).reverse().join(""));
  assert.equal(bytes, [...turned, ...last].join(""));
});

test("a call is one message, and its answer the value", async () => {
  const sum = hub.call("Calculator", "add", 1, 2);
  await settle();
  assert.equal(
    server.one().text,
    '{"Method":"Calculator.add:3","RelatedId":1,"CallType":0}\n1\x1f2',
  );
  server.ok(1, 3);
  assert.equal(await sum, 3);
});

test("a service is called like an object with async methods", async () => {
  const orders = hub.service("Orders");
  const order = orders.get("o1", { full: true });
  await settle();
  const { method, args } = server.one();
  assert.equal(method, "Orders.get:3");
  assert.deepEqual(args, ["o1", { full: true }]);
  server.ok(1, { id: "o1", lines: [] });
  assert.deepEqual(await order, { id: "o1", lines: [] });
});

test("a service is no promise, so an async function can return it", async () => {
  const orders = await (async () => hub.service("Orders"))();
  const call = orders.ids();
  await settle();
  server.ok(server.one().id, [1]);
  assert.deepEqual(await call, [1]);
});

test("the arity can be given for a method and for a service", async () => {
  const orders = hub.service("Orders", { arity: 7, methods: { add: { arity: 2 } } });
  orders.add(1, 2);
  orders.get(1);
  await settle();
  assert.deepEqual(
    server.take().map(({ method }) => method),
    ["Orders.add:2", "Orders.get:7"],
  );
});

test("arguments left out at the end are left to the server's defaults", async () => {
  hub.call("Orders", "find", undefined, "tea", undefined);
  hub.call("Orders", "find", undefined);
  await settle();
  const [first, second] = server.take();
  assert.equal(first.method, "Orders.find:4");
  assert.deepEqual(first.args, [null, "tea"]);
  assert.equal(second.text.split("\n")[1], "");
});

test("characters that part messages travel within strings", async () => {
  const text = "a\x1fb\n\x1ec\u2028ü\u{1f600}";
  const echo = hub.call("Echo", "say", text);
  await settle();
  assert.deepEqual(server.one().args, [text]);
  server.ok(1, text);
  assert.equal(await echo, text);
});

test("a call that nobody awaits is made all the same", async () => {
  hub.service("Orders").place("u1");
  await settle();
  assert.equal(server.one().method, "Orders.place:2");
});

test("a call is sent once, however often it is awaited", async () => {
  const call = hub.call("Orders", "place");
  const both = Promise.all([call, call.then((value) => value + 1)]);
  await settle();
  assert.equal(server.one().id, 1);
  server.ok(1, 1);
  assert.deepEqual(await both, [1, 2]);
});

test("a call of a method that only reads is sent only when awaited", async () => {
  const orders = hub.service("Orders", { methods: { ids: { compute: true } } });
  const ids = orders.ids();
  await settle();
  assert.deepEqual(server.take(), []);
  const read = ids.finally(() => 0);
  await settle();
  assert.equal(server.one().method, "Orders.ids:1");
  server.ok(1, [1]);
  assert.deepEqual(await read, [1]);
});

test("an error there is an error here, with the name of its type", async () => {
  const call = hub.call("Orders", "place");
  await settle();
  server.fail(1, "System.InvalidOperationException, System.Private.CoreLib", "Sold out");
  const error = await call.catch((each) => each);
  assert(error instanceof RpcError);
  assert.equal(error.message, "Sold out");
  assert.equal(error.typeName, "System.InvalidOperationException");
});

test("errors may have members in camel case, or none", async () => {
  const first = hub.call("Orders", "place");
  const second = hub.call("Orders", "place");
  await settle();
  server.send("$sys.Error:1", 1, { typeRef: "ShopError", message: "Sold out" });
  server.send("$sys.Error:1", 2, { typeRef: "", message: "" });
  const { typeName, message } = await first.catch((each) => each);
  assert.deepEqual([typeName, message], ["ShopError", "Sold out"]);
  assert((await second.catch((each) => each)) instanceof RpcError);
});

test("no result comes in three ways", async () => {
  for (const [id, text, value] of [
    [1, "{}", {}],
    [2, "null", null],
    [3, "", undefined],
  ]) {
    const call = hub.call("Orders", "clear");
    await settle();
    server.socket.deliver(`${JSON.stringify({ Method: "$sys.Ok:1", RelatedId: id })}\n${text}`);
    assert.deepEqual(await call, value);
  }
});

test("many messages come at once, empty, unknown and broken ones among them", async () => {
  const calls = [hub.call("A", "a"), hub.call("A", "b"), hub.call("A", "c")];
  await settle();
  const parts = ["", frame("$sys.Ok:1", 3, "c"), frame("$sys.Unknown:9", 1, 2), "nonsense"];
  parts.push(
    frame("$sys.Ok:1", 99, "?"),
    frame("$sys.Ok:1", 1, "a"),
    frame("$sys.Ok:1", 2, "b"),
    "",
  );
  const complaints = server.complaints();
  server.socket.deliver(parts.join("\n\x1e"));
  assert.deepEqual(await Promise.all(calls), ["a", "b", "c"]);
  assert.equal(complaints.length, 1); // about the nonsense
});

test("an answer that can't be read fails that call alone", async () => {
  const broken = hub.call("A", "a");
  const right = hub.call("A", "b");
  await settle();
  server.socket.deliver(`{"Method":"$sys.Ok:1","RelatedId":1}\n{oh`);
  server.ok(2, 5);
  assert((await broken.catch((each) => each)) instanceof SyntaxError);
  assert.equal(await right, 5);
});

test("a second answer changes nothing", async () => {
  const call = hub.call("A", "a");
  await settle();
  server.ok(1, "first");
  server.ok(1, "second");
  assert.equal(await call, "first");
});

test("what can't be written fails before it is sent", async () => {
  const loop = {};
  loop.self = loop;
  assert.throws(() => hub.call("A", "a", loop), TypeError);
  await settle();
  assert.deepEqual(server.take(), []);
});

test("sending waits for nothing, and is lost without a connection", async () => {
  hub.send("Chat", "type", "u1");
  await settle();
  const { method, id, args } = server.one();
  assert.deepEqual([method, id, args], ["Chat.type:2", 0, ["u1"]]);
  server.socket.drop();
  hub.service("Chat").type("u1").send();
  await server.pass(1000);
  assert.equal(server.one().method, "$sys.Handshake:1");
});

test("an aborted call is cancelled on the server", async () => {
  const control = new AbortController();
  const call = hub.call("A", "slow").with({ signal: control.signal });
  await settle();
  server.take();
  control.abort(new Error("enough"));
  const { method, id } = server.one();
  assert.deepEqual([method, id], ["$sys.Cancel:0", 1]);
  server.ok(1, "late");
  assert.equal((await call.catch((each) => each)).message, "enough");
});

test("a call with a signal that was aborted before is not sent", async () => {
  const call = hub.call("A", "a").with({ signal: AbortSignal.abort() });
  assert.equal((await call.catch((each) => each)).name, "AbortError");
  assert.deepEqual(server.take(), []);
});

test("a call that was answered has no use for its signal any more", async () => {
  const control = new AbortController();
  const call = hub.call("A", "a").with({ signal: control.signal });
  await settle();
  server.take();
  server.ok(1, 1);
  await call;
  control.abort();
  assert.deepEqual(server.take(), []);
});

test("a call fails when its time is over", async () => {
  const call = hub
    .service("Orders", { timeout: 3000 })
    .slow()
    .catch((each) => each);
  const endless = hub.call("Orders", "slow").with({ timeout: Infinity });
  await server.pass(2950);
  server.take();
  await server.pass(50);
  const { method, id } = server.one();
  assert.deepEqual([method, id], ["$sys.Cancel:0", 1]);
  assert.equal((await call).typeName, "TimeoutError");
  server.ok(2, "done");
  assert.equal(await endless, "done");
});

test("options of the hub hold for all calls, those of a service come first", async () => {
  const own = await server.connected("ws://own.test/rpc/ws", { arity: 4 });
  own.call("A", "a");
  own.service("A", { arity: 5 }).b();
  await settle();
  assert.deepEqual(
    server.take().map(({ method }) => method),
    ["A.a:4", "A.b:5"],
  );
});

test("what the server calls here is answered with an error: there is nothing to call", () => {
  server.send("Page.notify:2", 5, "hello");
  const { method, id, args } = server.one();
  assert.deepEqual([method, id], ["$sys.Error:1", 5]);
  assert.match(args[0].Message, /Page\.notify:2/);
  assert.notEqual(args[0].TypeRef, "");
  server.send("Page.notify:2", 0, "hello");
  assert.deepEqual(server.take(), []);
});

test("a closed hub fails its calls, and those that come later", async () => {
  const early = hub.call("A", "a").catch((each) => each);
  await settle();
  server.take();
  hub.close();
  const { method, id } = server.one(); // or the server would keep it, in case of a return
  assert.deepEqual([method, id], ["$sys.Cancel:0", 1]);
  assert.equal((await early).typeName, "DisconnectedError");
  const late = hub.call("A", "a").catch((each) => each);
  assert.equal((await late).typeName, "DisconnectedError");
  assert.equal(hub.state.isFinal, true);
  assert.equal(server.socket.isClosed, true);
  await server.pass(30_000, 1000);
  hub.reconnect();
  assert.equal(server.sockets.length, 1);
});
