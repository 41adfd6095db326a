// A server's end of the connection, in the hands of a test; and time that passes when the test says so.
import { mock } from "node:test";

/** What the page's sockets talk to. */
export class FakeServer {
  /** @type {FakeSocket[]} */ sockets = [];
  guid = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
  index = 0;
  isUp = true;
  greets = true;

  /** Becomes what `new WebSocket` connects to; time stands still. */
  constructor() {
    mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
    const server = this;
    globalThis.WebSocket = class extends FakeSocket {
      constructor(url) {
        super(server, url);
      }
    };
  }

  get socket() {
    return this.sockets.at(-1);
  }

  /** The messages of the newest connection that were not looked at yet. */
  take() {
    return this.socket.received.splice(0);
  }

  /** The only message that is new, keep-alives aside. */
  one() {
    const all = this.take().filter((each) => each.method !== "$sys.KeepAlive:1");
    if (all.length !== 1) throw new Error(`${all.length} messages: ${JSON.stringify(all)}`);
    return all[0];
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
    this.received.push({ method, id, type, args: values, text });
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
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** Let so many milliseconds pass, bit by bit, so that what they bring about has its turn. */
export async function pass(milliseconds, step = 50) {
  for (let left = milliseconds; left > 0; left -= step) {
    mock.timers.tick(Math.min(step, left));
    await settle();
  }
}
