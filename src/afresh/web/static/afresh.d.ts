/**
 * What `afresh.js` offers: calls, live values and streams of an afresh server, for any web page.
 *
 *     import { connect } from "/afresh/afresh.js"
 *     const orders = connect().service("Orders")
 *     await orders.place("u1")                                // one call
 *     const stop = orders.for_user("u1").subscribe(render)    // now, and whenever it changed
 *     for await (const list of orders.for_user("u1")) { … }   // the same as a loop
 *
 *     <afresh-value service="Orders" method="for_user" args='["u1"]'></afresh-value>
 *     <afresh-status></afresh-status>
 *
 * All times are in milliseconds.
 */

/** Options of a call, of all calls of a method, a service, or a hub; the nearest count. */
export interface Options {
  /** The number in the method's wire name; by default that of the arguments + 1. */
  arity?: number;
  /** True: the method only reads, so it is sent only when awaited. False: it can't be followed. */
  compute?: boolean;
  /** From a change to the update that shows it: 250 by default, and none while own calls run. */
  delay?: number;
  /** How long a call may take, being offline included; without limit by default. */
  timeout?: number;
  /** Cancels the call, ends the subscription or the loop. */
  signal?: AbortSignal;
  /** False: if the connection breaks, the call may fail rather than run a second time. */
  resend?: boolean;
  /** Hears of the errors of a subscription, in place of the console. */
  onError?: (error: Error) => void;
}

export interface ServiceOptions extends Options {
  /** What differs for single methods, by name. */
  methods?: Record<string, Options>;
}

/** A live value as far as it is known; another object whenever it changed. */
export interface Result<T = any> {
  readonly value?: T;
  readonly error?: any;
}

/** A call that was described: await it or follow it, else it is sent when this turn ends. */
export interface Query<T = any> extends PromiseLike<T>, AsyncIterable<T> {
  catch<R = never>(reject?: ((error: any) => R | PromiseLike<R>) | null): Promise<T | R>;
  finally(fn?: (() => void) | null): Promise<T>;
  /** Changes options of this call. */
  with(options: Options): Query<T>;
  /** What subscriptions to this have so far; undefined without any. */
  readonly current: Result<T> | undefined;
  /** Calls a function with the value, and again whenever it changed; returns what ends that. */
  subscribe(fn: (value: T) => void, options?: Options): () => void;
  /** The items of the stream that the method returns. */
  stream(): AsyncGenerator<any, void>;
  /** Sends it without waiting for anything; lost when there is no connection. */
  send(): void;
}

export type Service = Record<string, (...args: any[]) => Query>;

/** The state of a connection. */
export interface State {
  readonly kind: "just-connected" | "connected" | "just-disconnected" | "disconnected";
  /** The state in words, for people. */
  readonly text: string;
  readonly isConnected: boolean;
  /** True also in the first three seconds without connection. */
  readonly likelyConnected: boolean;
  /** How long until the next attempt; 0 while it runs. */
  readonly reconnectsIn: number;
  /** It does not reconnect by itself any more: the server refused, or the hub was closed. */
  readonly isFinal: boolean;
  /** Why there is no connection. */
  readonly error: Error | undefined;
}

/** This end of the connection to one server. It lasts until `close()`, over any number of sockets. */
export interface Hub {
  readonly state: State;
  /** Calls a function with the state: now, on each change, and often while not connected. */
  onState(fn: (state: State) => void): () => void;
  /** Tries to connect now rather than when the delay is over. */
  reconnect(): void;
  /** Ends it for good: whatever is still going on fails. */
  close(): void;
  /** A service: `await service.method(...args)`. */
  service<S = Service>(name: string, options?: ServiceOptions): S;
  call(service: string, method: string, ...args: any[]): Query;
  /** The items of the stream that a method returns. */
  stream(service: string, method: string, ...args: any[]): AsyncGenerator<any, void>;
  /** The items of a stream that came within a value. */
  open(reference: string, signal?: AbortSignal): AsyncGenerator<any, void>;
  /** Sends a call without waiting for anything; lost when there is no connection. */
  send(service: string, method: string, ...args: any[]): void;
}

/**
 * The connection of this page to a server; one for each address.
 *
 * @param url by default `/rpc/ws` of the host that the page is from
 * @param options of all calls
 */
export function connect(url?: string | URL, options?: Options): Hub;

/** What went wrong there, or on the way. */
export class RpcError extends Error {
  constructor(message: string, typeName?: string);
  /** What the server calls the type of the error. */
  readonly typeName: string;
}

/** How `{{field|name}}` in templates writes a value; add your own. */
export const formats: Record<string, (value: any) => unknown>;
