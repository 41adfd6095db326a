// @ts-check
/**
 * Calls, live values and streams of an afresh server, over one WebSocket; `afresh.d.ts` tells how.
 * Not here: MessagePack, streams to the server, values computed on the page.
 */

/** @import { Hub, Query } from "./afresh.d.ts" */

export class RpcError extends Error {
  constructor(message = "", typeName = "DisconnectedError") {
    super(message);
    this.name = this.typeName = typeName;
  }
}

/** Some peers write `RemotePeerId`, some `remotePeerId`. */
const pick = (record, name) => record?.[name] ?? record?.[name[0].toLowerCase() + name.slice(1)];

const toError = (info) => {
  const type = pick(info, "TypeRef");
  const text = pick(info, "Message");
  return type || text ? new RpcError(text, `${type}`.split(",")[0]) : undefined;
};

const parse = (text) => (text ? JSON.parse(text) : undefined);

const encode = (name, args, id = 0, type = 0) => {
  const count = args.findLastIndex((each) => each !== undefined) + 1; // the server has defaults
  const values = args.slice(0, count).map((each) => JSON.stringify(each) ?? "null");
  return `${JSON.stringify({ Method: name, RelatedId: id, CallType: type })}\n${values.join("\x1f")}`;
};

/** Ascending numbers as LEB128 of their differences. */
const pack = (ids) => {
  let bytes = "";
  let last = 0;
  for (const id of ids) {
    let rest = id - last;
    for (; rest > 127; rest >>= 7) bytes += String.fromCharCode((rest & 127) | 128);
    bytes += String.fromCharCode(rest);
    last = id;
  }
  return btoa(bytes);
};

const unpack = (packed) => {
  const ids = [];
  let id = 0;
  let shift = 0;
  for (const each of atob(packed)) {
    const byte = each.charCodeAt(0);
    id += (byte & 127) << shift;
    shift += 7;
    if (byte > 127) continue;
    ids.push(id);
    shift = 0;
  }
  return ids;
};

/** Right also when the clock was set back. */
const since = (time) => Math.abs(Date.now() - time);

/** Errors of the page must not stop the rest. */
const guard = (fn, value) => {
  try {
    fn(value);
  } catch (error) {
    console.error(error);
  }
};

const onAbort = (signal, fn) => {
  signal?.addEventListener("abort", fn);
  return () => signal?.removeEventListener("abort", fn);
};

/** What `pull` finds, then and whenever `start` lets it know; `{}` is the end. */
async function* loop(signal, pull, start) {
  let wake;
  const ring = () => wake?.();
  const stop = start(ring);
  const off = onAbort(signal, ring);
  try {
    for (;;) {
      signal?.throwIfAborted();
      const result = pull();
      if (!result) await new Promise((resolve) => (wake = resolve));
      else if (result.error) throw result.error;
      else if ("value" in result) yield result.value;
      else return;
    }
  } finally {
    off();
    stop();
  }
}

const hubs = new Map();

/** @type {typeof import("./afresh.d.ts").connect} */
export const connect = (url, options) => {
  const address = new URL(url ?? "/rpc/ws", globalThis.location?.href);
  address.protocol = address.protocol.replace("http", "ws");
  return hubs.get(address.href) ?? newHub(address.href, options);
};

const newHub = (address, options) => {
  const calls = new Map();
  const lives = new Map();
  const streams = new Map();
  const watchers = new Set();
  const life = new AbortController();
  // A GUID, and as URLs have it; `crypto.randomUUID` is missing on plain http.
  const bytes = [...crypto.getRandomValues(new Uint8Array(16))];
  const hex = bytes.map((each) => each.toString(16).padStart(2, "0")).join("");
  const guid = hex.replace(/(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  const text = btoa(String.fromCharCode(...order.map((each) => bytes[each])));
  const clientId = text.replace(/\+/g, "-").replace(/\//g, "_").slice(0, 22);
  let socket, server, error, dialing, watching, ticking;
  let isReady = false;
  let isFinal = false;
  let [dialsAt, heardAt, beatAt, ranAt] = [0, 0, 0, 0];
  let [running, failures, connections, lastId] = [0, 0, 0, 0];
  let changedAt = Date.now();
  let dropped = [];

  // ---- the state

  const announce = () => {
    clearTimeout(ticking);
    const { state } = hub;
    for (const each of [...watchers]) guard(each, state);
    if (watchers.size && state.kind !== "connected" && !isFinal)
      ticking = setTimeout(announce, 250);
  };

  // ---- sockets

  const dial = () => {
    clearTimeout(dialing);
    dialsAt = 0;
    isFinal = false;
    const url = new URL(address);
    url.searchParams.set("clientId", clientId);
    url.searchParams.set("f", "json5np");
    const mine = (socket = new WebSocket(url));
    expect(10_000);
    mine.onopen = () => {
      expect(10_000);
      const ids = { RemotePeerId: guid, RemoteApiVersionSet: null, RemoteHubId: guid };
      const hello = { ...ids, ProtocolVersion: 2, Index: ++connections };
      mine.send(encode("$sys.Handshake:1", [hello]));
    };
    mine.onmessage = ({ data }) => {
      for (const each of `${data}`.split("\n\x1e"))
        if (each && mine === socket) guard(receive, each);
    };
    mine.onclose = ({ code, reason }) => {
      lose(`Closed: ${code} ${reason}`);
      if (code === 4001) stop();
      if (code !== 1009) return;
      // Too big: it would be so again, whichever it was.
      const [first] = [...calls.values()].sort((a, b) => b.text.length - a.text.length);
      if (first && calls.delete(first.id)) first.fail(error);
    };
    announce();
  };

  const expect = (time) => {
    clearTimeout(watching);
    watching = setTimeout(() => lose("No answer."), time);
  };

  const lose = (why) => {
    if (!socket) return;
    if (isReady) {
      if (since(changedAt) >= 15_000) failures = 0;
      changedAt = Date.now();
    }
    socket.onopen = socket.onclose = null;
    socket.close();
    socket = undefined;
    isReady = false;
    clearTimeout(watching);
    error = new RpcError(why);
    const delay = Math.min(10_000, 100 * 2 ** (failures++ / 2)) * (0.9 + Math.random() / 5);
    dialsAt = Date.now() + delay;
    dialing = setTimeout(dial, delay);
    for (const each of streams.values()) if (!each.canResume) each.fail();
    for (const each of calls.values()) if (each.once) calls.delete(each.id);
    announce();
  };

  /** For good. */
  const stop = () => {
    isFinal = true;
    for (const each of lives.values()) each.hurry();
    for (const each of [...streams.values(), ...calls.values()]) each.fail(error);
    for (const each of calls.values()) if (!each.stale || life.signal.aborted) cancel(each);
    lose(error.message);
    clearTimeout(dialing);
    dialsAt = 0;
    announce();
  };

  const reconnect = () => {
    if (!socket && !life.signal.aborted) dial();
  };

  for (const type of ["online", "pageshow", "visibilitychange", "pagehide"]) {
    const isLeft = type === "pagehide"; // connected, it is not kept for the way back
    /** @type {any} */
    const note = ({ persisted }) => {
      if (isLeft && !persisted) for (const each of calls.values()) cancel(each);
      if (isLeft || (isReady && since(heardAt) > 12_000)) lose("The page slept.");
      if (isLeft) clearTimeout(dialing);
      else if (!isFinal) reconnect();
    };
    globalThis.addEventListener?.(type, note, life);
  }

  // ---- messages

  const say = (name, args, id) => {
    if (isReady) socket.send(encode(name, args, id));
  };

  const beat = () => {
    beatAt = Date.now();
    say("$sys.KeepAlive:1", [[...streams.keys()]]);
  };
  const beating = setInterval(beat, 10_000);

  const hear = () => {
    heardAt = Date.now();
    expect(25_000);
    // Timers of hidden pages are late.
    if (since(beatAt) > 11_000) beat();
  };

  const post = (call) => {
    call.isSent = true;
    socket.send(call.text);
  };

  const begin = (name, args, type, handlers) => {
    const id = ++lastId;
    const call = { id, text: encode(name, args, id, type), ...handlers };
    if (isFinal) queueMicrotask(() => call.fail(error));
    if (!isFinal || call.stale) calls.set(id, call);
    if (isReady) post(call);
    return call;
  };

  const cancel = ({ id, isSent }) => {
    if (!calls.delete(id) || !isSent) return;
    if (isReady) say("$sys.Cancel:0", [], id);
    else dropped.push(id);
  };

  const receive = (text) => {
    const end = text.indexOf("\n");
    const { Method: name, RelatedId: id = 0 } = JSON.parse(text.slice(0, end));
    const [first, second] = text.slice(end + 1).split("\x1f");
    const call = calls.get(id);
    const stream = streams.get(id);
    const isOk = name === "$sys.Ok:1";
    if (!isReady) {
      if (name === "$sys.Handshake:1") welcome(parse(first));
      else lose("No handshake.");
    } else if (name === "$sys.KeepAlive:1") hear();
    else if (isOk || name === "$sys.Error:1") {
      if (!call || call.isAnswered) return;
      call.isAnswered = true;
      if (!call.stale) calls.delete(id);
      try {
        if (isOk) call.ok(first);
        else call.fail(toError(parse(first)) ?? new RpcError());
      } catch (failure) {
        call.fail(failure);
      }
    } else if (name === "$sys-c.Invalidate:0") {
      if (call?.stale && calls.delete(id)) call.stale();
    } else if (name === "$sys.Disconnect:1")
      for (const each of parse(first)) streams.get(each)?.fail();
    else if (name === "$sys.I:2") stream?.receive(parse(first), [parse(second)]);
    else if (name === "$sys.B:2") stream?.receive(parse(first), parse(second));
    else if (name === "$sys.End:2") stream?.end(parse(first), toError(parse(second)) ?? null);
    else if (id && !name.startsWith("$sys"))
      say("$sys.Error:1", [{ TypeRef: "RpcException", Message: `No ${name} here.` }], id);
  };

  const welcome = (hello) => {
    const known = server;
    server = pick(hello, "RemotePeerId");
    const isSame = server === known;
    isReady = true;
    error = undefined;
    changedAt = beatAt = Date.now();
    hear();

    if (isSame) for (const id of dropped) say("$sys.Cancel:0", [], id);
    dropped = [];
    const sent = [...calls.values()].filter((each) => each.isSent);
    for (const each of calls.values()) if (!each.isSent) post(each);
    const read = [...streams.values()];
    if (!isSame) streams.clear();
    for (const each of read)
      if (isSame) each.resume();
      else each.fail();

    /** The server knows nothing of these calls. */
    const redo = (ids) => {
      for (const id of ids) {
        const call = calls.get(id);
        if (call && !call.isAnswered && call.resend !== false) post(call);
        else if (calls.delete(id))
          if (call.isAnswered) call.stale();
          else call.fail(new RpcError("Disconnected; it may be done or not."));
      }
    };
    const all = sent.map((each) => each.id);
    const ids = (stage) => pack(all.filter((id) => +!!calls.get(id)?.isAnswered === stage));
    const answer = {
      once: true,
      ok: (text) => redo(unpack(parse(text))),
      fail: () => redo(all),
    };
    if (!isSame || !all.length) redo(all);
    else begin("$sys.Reconnect:3", [pick(hello, "Index"), { 0: ids(0), 1: ids(1) }], 0, answer);
    announce();
  };

  // ---- calls

  const invoke = async (name, args, { signal, timeout, resend, compute }) => {
    let timer;
    let off = () => {};
    if (!compute) {
      running++;
      for (const each of lives.values()) each.hurry();
    }
    try {
      signal?.throwIfAborted();
      return await new Promise((resolve, fail) => {
        const ok = (text) => resolve(parse(text));
        const call = begin(name, args, 0, { ok, fail, resend });
        const give = (up) => {
          cancel(call);
          fail(up);
        };
        if (timeout < 2 ** 31)
          timer = setTimeout(give, timeout, new RpcError("No answer in time.", "TimeoutError"));
        off = onAbort(signal, () => give(signal.reason));
      });
    } finally {
      off();
      clearTimeout(timer);
      if (!compute) {
        running--;
        ranAt = Date.now();
      }
    }
  };

  /** A live value, shared by all on the page who follow it. */
  const newLive = (key, name, args) => {
    const listeners = new Set();
    let call;
    let timer;
    let seen;
    let failures = 0;

    const tell = (listener) => {
      const { value, error } = live.current;
      if (!listeners.has(listener)) return;
      if (error) guard(listener.onError ?? console.error, error);
      else guard(listener.fn, value);
    };

    const set = (text, result) => {
      failures = result.error ? failures + 1 : 0;
      if (text === seen) return;
      seen = text;
      live.current = result;
      for (const each of [...listeners]) tell(each);
    };

    const stale = () => {
      if (!call.isAnswered) failures++; // the server gave it up
      const delays = [...listeners].map(({ delay = 250 }) => delay);
      const delay = running || since(ranAt) < 300 ? 0 : Math.min(...delays);
      timer = setTimeout(live.fetch, failures ? Math.min(60_000, 500 * 2 ** failures) : delay);
    };

    const live = {
      /** @type {any} */
      current: undefined,
      fetch() {
        clearTimeout(timer);
        timer = 0;
        call = begin(name, args, 1, {
          ok: (text) => set(`=${text}`, { value: parse(text) }),
          fail: (error) => set(`${error}`, { error }),
          stale,
        });
      },
      hurry: () => timer && live.fetch(),
      add(fn, options) {
        const listener = { ...options, fn };
        const { current } = live;
        listeners.add(listener);
        // Not before the subscriber can end it.
        if (current) queueMicrotask(() => live.current === current && tell(listener));
        const stop = () => {
          off();
          if (!listeners.delete(listener) || listeners.size) return;
          clearTimeout(timer);
          lives.delete(key);
          cancel(call);
        };
        const off = onAbort(options.signal, stop);
        if (options.signal?.aborted) stop();
        return stop;
      },
    };
    lives.set(key, live);
    live.fetch();
    return live;
  };

  /** A stream of the server. */
  const newStream = (reference) => {
    const [host, ...rest] = `${reference}`.split(",");
    const [id, period, advance, canResume = 1] = rest.map(Number);
    if (!(id > 0 && period > 0 && advance > 0)) throw new TypeError("The result is no stream.");
    const items = [];
    /** @type {any} */
    let end, ring;
    let next = 0;
    let read = 0;
    let acked = 0;

    const ack = (index, by) => {
      acked = index;
      say("$sys.Ack:2", [index, by], id);
    };

    const isGap = (index) => {
      if (index <= next) return false;
      if (canResume) stream.resume();
      else stream.fail();
      return true;
    };

    const stream = {
      canResume,
      resume: () => ack(next, host),
      receive(index, more) {
        if (isGap(index)) return;
        items.push(...more.slice(next - index));
        next = Math.max(next, index + more.length);
        if (next > read + 2 * advance + period)
          stream.fail(new RpcError("Too much was sent.", "LimitError"));
        ring();
      },
      end(index, error) {
        if (!isGap(index) && index === next) stream.fail(error);
      },
      fail(error = new RpcError("Peer disconnected.")) {
        end ??= { error };
        if (streams.get(id) === stream && streams.delete(id)) say("$sys.AckEnd:1", [host], id);
        ring?.();
      },
      read(signal) {
        const pull = () => {
          if (read >= acked + period) ack(read, "00000000-0000-0000-0000-000000000000");
          if (!items.length) return end;
          read++;
          return { value: items.shift() };
        };
        return loop(signal, pull, (bell) => {
          const old = streams.get(id);
          ring = bell;
          streams.set(id, stream);
          old?.fail();
          stream.resume();
          return stream.fail;
        });
      },
    };
    return stream;
  };

  const newQuery = (name, args, options) => {
    const key = JSON.stringify([name, args]);
    let isTaken = options.compute;
    let promise;
    const run = () => (promise ??= invoke(name, args, options));
    // A call that nobody waits for is made as well.
    queueMicrotask(() => isTaken || run());
    /** @type {Query} */
    const query = {
      with(more) {
        options = { ...options, ...more };
        return query;
      },
      then: (...both) => run().then(...both),
      catch: (reject) => run().catch(reject),
      finally: (fn) => run().finally(fn),
      get current() {
        isTaken = true;
        return lives.get(key)?.current;
      },
      subscribe(fn, more) {
        isTaken = true;
        const all = { ...options, ...more };
        if (all.compute === false) throw new TypeError(`${name} is no compute method.`);
        return (lives.get(key) ?? newLive(key, name, args)).add(fn, all);
      },
      [Symbol.asyncIterator]() {
        let last;
        const pull = () => (query.current === last ? undefined : (last = query.current));
        return loop(options.signal, pull, (ring) => query.subscribe(ring, { onError: ring }));
      },
      stream() {
        isTaken = true;
        return (async function* () {
          yield* newStream(await run()).read(options.signal);
        })();
      },
      send() {
        isTaken = true;
        say(name, args);
      },
    };
    return query;
  };

  /** @type {Hub} */
  const hub = {
    get state() {
      const isNew = !isFinal && since(changedAt) < (isReady ? 1500 : 3000);
      const reconnectsIn = Math.max(0, dialsAt - Date.now());
      let text = isNew ? "Just connected." : "Connected.";
      if (!isReady) text = isFinal || reconnectsIn >= 1000 ? "Disconnected." : "Reconnecting...";
      if (!isReady && isNew) text = server ? "Just disconnected, reconnecting..." : "Connecting...";
      return {
        kind: /** @type {any} */ (`${isNew ? "just-" : ""}${isReady ? "" : "dis"}connected`),
        text,
        isConnected: isReady,
        likelyConnected: isReady || isNew,
        reconnectsIn,
        isFinal,
        error,
      };
    },
    onState(fn) {
      watchers.add(fn);
      announce();
      return () => void watchers.delete(fn);
    },
    reconnect,
    close() {
      life.abort();
      hubs.delete(address);
      clearInterval(beating);
      error = new RpcError("The hub was closed.");
      stop();
    },
    service: (name, { methods, ...common } = {}) =>
      new Proxy(/** @type {any} */ ({}), {
        get(_, method) {
          if (typeof method === "symbol" || method === "then") return; // it is no promise
          const all = { ...options, ...common, ...methods?.[method] };
          return (...args) =>
            newQuery(`${name}.${method}:${all.arity ?? args.length + 1}`, args, all);
        },
      }),
    call: (service, method, ...args) => hub.service(service)[method](...args),
    stream: (...call) => hub.call(...call).stream(),
    open: (reference, signal) => newStream(reference).read(signal),
    send: (...call) => hub.call(...call).send(),
  };
  hubs.set(address, hub);
  dial();
  return hub;
};

// ---- elements

const dig = (value, path) =>
  (path ?? "").split(".").reduce((part, name) => (name ? part?.[name] : part), value);

/** @type {any} */
export const formats = {};

const rows = new WeakMap();

/** Show a template for each item; rows of equal items stay. */
const stamp = (template, value) => {
  const old = rows.get(template) ?? [];
  const next = [value ?? []].flat().map((item) => {
    const text = JSON.stringify(item);
    const index = old.findIndex((row) => row.text === text);
    return index < 0 ? { text, nodes: render(template, item) } : old.splice(index, 1)[0];
  });
  rows.set(template, next);
  for (const { nodes } of old) for (const each of nodes) each.remove();
  let last = template;
  for (const { nodes } of next)
    for (const each of nodes) {
      if (last.nextSibling !== each) last.after(each);
      last = each;
    }
};

/** Values become text, never markup or code. */
const render = (template, item) => {
  const fill = (text, name) =>
    text.replace(/{{\s*([\w.]+)\s*\|?\s*(\w*)\s*}}/g, (_, path, format) => {
      if (/^(on|x-|(data-)?hx-(on|v|h|tr|req)|[@:]|srcdoc|SCRIPT|STYLE)/.test(name))
        throw new Error(`A value in ${name} would be run.`);
      let value = dig(item, path);
      if (format) value = formats[format](value);
      if (name === "args") return JSON.stringify(value);
      return name === "style" ? `${value}`.replace(/[^\w.%# -]/g, "") : (value ?? "");
    });
  const content = template.content.cloneNode(true);
  const walker = document.createTreeWalker(content, 5);
  /** @type {any[]} */
  const nodes = [];
  while (walker.nextNode()) nodes.push(walker.currentNode);
  for (const each of nodes) {
    if (each.data) each.data = fill(each.data, each.parentNode.nodeName);
    for (const { name, value } of each.attributes ?? []) {
      const text = fill(value, name);
      if (text !== value) each.setAttribute(name, text);
      if (/^javascript:/i.test(text.replace(/[\0- ]/g, ""))) each.removeAttribute(name);
    }
    if (each.content && each.hasAttribute("each")) {
      stamp(each, dig(item, each.getAttribute("each")));
      each.remove();
    }
  }
  return [...content.childNodes];
};

const define = (name, follow, ...attributes) => {
  if (!globalThis.customElements || customElements.get(name)) return;
  const type = class extends HTMLElement {
    static observedAttributes = attributes;
    isDue = false;
    stop = () => {};

    connectedCallback() {
      if (this.isDue) return;
      this.isDue = true;
      // Attributes change one by one; to move is to leave and come.
      queueMicrotask(() => {
        this.isDue = false;
        const { stop } = this;
        const url = this.closest("[afresh-url]")?.getAttribute("afresh-url") ?? undefined;
        this.stop = this.isConnected ? follow(this, connect(url)) : () => {};
        stop();
      });
    }
    disconnectedCallback() {
      this.connectedCallback();
    }
    attributeChangedCallback() {
      this.connectedCallback();
    }
  };
  customElements.define(name, type);
};

const followValue = (element, hub) => {
  const [service, method, args, path] = VALUE.map((name) => element.getAttribute(name) ?? "");
  const show = (value) => {
    const all = [...element.querySelectorAll("template")];
    const own = all.filter((each) => each.closest("afresh-value") === element);
    for (const each of own) stamp(each, dig(value, each.getAttribute("each")));
    element.toggleAttribute("empty", value == null || value.length === 0);
    if (!own.length)
      element.textContent = typeof value === "object" ? JSON.stringify(value) : value;
  };
  const note = (detail) => {
    element.toggleAttribute("error", !!detail.error);
    if (!detail.error) show(dig(detail.value, path));
    element.dispatchEvent(new CustomEvent("afresh:update", { bubbles: true, detail }));
  };
  return hub
    .service(service, { ...element.dataset })
    [method](...(parse(args) ?? []))
    .subscribe((value) => note({ value }), { onError: (error) => note({ error }) });
};

const followStatus = (element, hub) => {
  const add = (name) => element.appendChild(document.createElement(name));
  element.textContent = "";
  const text = add("span");
  const left = add("small");
  const button = add("button");
  text.role = "status";
  button.textContent = "Reconnect";
  button.onclick = hub.reconnect;
  return hub.onState((state) => {
    const seconds = Math.ceil(state.reconnectsIn / 1000);
    element.setAttribute("kind", state.kind);
    if (text.textContent !== state.text) text.textContent = state.text;
    left.textContent = seconds > 1 ? ` in ${seconds} s ` : " ";
    button.hidden = state.kind !== "disconnected";
  });
};

const VALUE = ["service", "method", "args", "path"];
define("afresh-value", followValue, ...VALUE);
define("afresh-status", followStatus);
