import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { connect, RpcError } from "../../../src/afresh/web/static/afresh.js";
import { FakeServer, pass, settle } from "./fake.js";

let server, hub;

beforeEach(async () => {
  server = new FakeServer();
  hub = connect("ws://shop.test/rpc/ws");
  await settle();
});

afterEach(() => {
  hub.close();
  mock.timers.reset();
});

test("the first message introduces the page", () => {
  const { method, id, args } = server.one();
  assert.equal(method, "$sys.Handshake:1");
  assert.equal(id, 0);
  const [hello] = args;
  assert.match(hello.RemotePeerId, /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/);
  assert.deepEqual(
    { ...hello, RemotePeerId: 0, RemoteHubId: 0 },
    { RemotePeerId: 0, RemoteApiVersionSet: null, RemoteHubId: 0, ProtocolVersion: 2, Index: 1 },
  );
  const { searchParams, pathname } = server.socket.url;
  assert.equal(pathname, "/rpc/ws");
  assert.equal(searchParams.get("f"), "json5np");
  // The client id is the GUID's bytes in .NET order.
  const bytes = Buffer.from(searchParams.get("clientId"), "base64url").toString("hex");
  const [a, b, c, ...rest] = hello.RemotePeerId.split("-");
  const turned = [a, b, c].map((each) => each.match(/../g).reverse().join(""));
  assert.equal(bytes, [...turned, ...rest].join(""));
});
