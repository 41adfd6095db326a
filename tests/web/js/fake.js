// A server's end of the connection, in the hands of a test; and time that passes when the test says so.
import { mock } from "node:test";

import { connect } from "../../../src/afresh/web/static/afresh.js";

const START = Date.UTC(2026, 0, 1);
const URL_OF_SHOP = "ws://shop.test/rpc/ws";

/** What the page's sockets talk to. */
export class FakeServer {
  /** @type {FakeSocket[]} */ sockets = [];
  guid = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
  index = 0;
  /** Whether connections are taken; undefined leaves them hanging. */
  isUp = true;
  greets = true;
  /** Whether it shows every ten seconds that it is there. */
  isAlive = true;
  #hubs = [];
  #time = 0;
  #asked = [];

  /** Becomes what `new WebSocket` connects to; time stands still. */
  constructor() {
    mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"], now: START });
    const server = this;
    globalThis.WebSocket = class extends FakeSocket {
      constructor(url) {
        super(server, url);
      }
    };
  }

  /** A hub that is about to connect. */
  hub(url = URL_OF_SHOP, options) {
    const hub = connect(url, options);
    this.#hubs.push(hub);
    return hub;
  }

  /** A hub that is connected, and has introduced itself. */
  async connected(url, options) {
    const hub = this.hub(url, options);
    await settle();
    this.hello = this.one();
    return hub;
  }

  /** What the page writes to the console from now on. */
  complaints() {
    const all = [];
    mock.method(console, "error", (...words) => all.push(words));
    return all;
  }

  end() {
    this.complaints(); // of subscriptions, as their hub is closed
    for (const { socket, id } of this.#asked) socket.deliver(frame("$sys.Ok:1", id));
    for (const each of this.#hubs) each.close();
    mock.reset();
    mock.timers.reset();
  }

  /** Let so many milliseconds pass, bit by bit, so that what they bring about has its turn. */
  async pass(milliseconds, step = 50) {
    await settle();
    for (let left = milliseconds; left > 0; left -= step) {
      const time = Math.min(step, left);
      mock.timers.tick(time);
      const beats = Math.floor((this.#time + time) / 10_000) > Math.floor(this.#time / 10_000);
      this.#time += time;
      if (beats && this.isAlive && this.socket?.isOpen) this.send("$sys.KeepAlive:1", 0, []);
      await settle();
    }
  }

  get socket() {
    return this.sockets.at(-1);
  }

  /** The messages of the newest connection, keep-alives aside, that were not looked at yet. */
  take() {
    return this.socket.received.splice(0);
  }

  /** The only message that is new. */
  one() {
    const all = this.take();
    if (all.length !== 1) throw new Error(`${all.length} messages: ${JSON.stringify(all)}`);
    return all[0];
  }

  note(socket, { method, id, type, args, text }) {
    if (id && !type) this.#asked.push({ socket, id });
    const isBeat = method === "$sys.KeepAlive:1";
    (isBeat ? socket.beats : socket.received).push({ method, id, type, args, text });
  }

  send(method, id, ...args) {
    this.socket.deliver(frame(method, id, ...args));
  }

  ok(id, value) {
    this.send("$sys.Ok:1", id, value);
  }

  fail(id, typeName, text) {
    this.send("$sys.Error:1", id, { TypeRef: typeName, Message: text });
  }

  invalidate(id) {
    this.send("$sys-c.Invalidate:0", id);
  }
}

export function frame(method, id, ...args) {
  const head = JSON.stringify({ Method: method, RelatedId: id });
  return `${head}\n${args.map((each) => JSON.stringify(each)).join("\x1f")}`;
}

class FakeSocket {
  received = [];
  beats = [];
  isOpen = false;
  isClosed = false;

  constructor(server, url) {
    this.server = server;
    this.url = new URL(url);
    server.sockets.push(this);
    queueMicrotask(() => {
      if (this.isClosed || server.isUp === undefined) return;
      if (!server.isUp) return this.drop();
      this.isOpen = true;
      this.onopen?.();
      if (server.greets) this.greet();
    });
  }

  greet() {
    const { guid } = this.server;
    const index = ++this.server.index;
    const hello = { RemotePeerId: guid, RemoteHubId: guid, ProtocolVersion: 2, Index: index };
    this.deliver(frame("$sys.Handshake:1", 0, hello));
  }

  send(text) {
    if (!this.isOpen) throw new Error("InvalidStateError");
    const [head, args] = text.split("\n");
    const { Method: method, RelatedId: id, CallType: type } = JSON.parse(head);
    const values = args ? args.split("\x1f").map((each) => JSON.parse(each)) : [];
    this.server.note(this, { method, id, type, args: values, text });
  }

  deliver(data) {
    this.onmessage?.({ data });
  }

  /** The connection breaks, or the server closes it. */
  drop(code = 1006, reason = "") {
    if (this.isClosed) return;
    this.isOpen = false;
    this.isClosed = true;
    this.onclose?.({ code, reason });
  }

  /** The page closes it. */
  close() {
    this.isOpen = false;
    this.isClosed = true;
  }
}

/** Let everything happen that waits for nothing. */
export async function settle() {
  for (let turn = 0; turn < 6; turn++) await new Promise((resolve) => setImmediate(resolve));
}
