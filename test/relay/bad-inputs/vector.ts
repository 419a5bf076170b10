import type { Head } from "../raw-http2.js";

/** What a listener is of: which checks stand in it, and what stands behind it. A new kind makes every class say whether it is concerned. */
export type ListenerKind =
  | "http service"
  | "MCP service"
  | "egress target"
  | "WebSocket"
  | "CONNECT proxy"
  | "gRPC"
  | "TCP"
  | "TCP over TLS"
  | "AuthZEN"
  | "documents"
  | "control API";

/** A sound request of a listener with something changed. `{host}`, `{port}` and `{path}` stand for what the listener wants there. */
export interface ChangedRequest {
  readonly method?: string;
  readonly target?: string;
  readonly host?: string;
  /** Further header lines. */
  readonly headers?: readonly string[];
  /** Names of headers of the sound request that are left out. */
  readonly without?: readonly string[];
  /** Instead of the sound body; brings its own framing among `headers`. */
  readonly body?: string;
  /** The whole request, instead of all others; `{sound}` stands for the sound one. */
  readonly raw?: string;
  /** Instead of the sound body, framed by its length. */
  readonly message?: (sound: string) => string | Buffer;
  /** Of HTTP/2: fields of the sound head with another value or, undefined, left out, and those that come behind them. */
  readonly fields?: { readonly changes?: Readonly<Record<string, string | undefined>>; readonly more?: Head };
  /** Of TCP: what is said first, in place of the sound bytes. */
  readonly first?: string;
  /** Of TLS: what the handshake says otherwise. */
  readonly tls?: {
    readonly alpn?: readonly string[];
    readonly certificate?: "none" | "of another authority";
    readonly maxVersion?: "TLSv1.2";
    /** What comes in place of the handshake. */
    readonly instead?: string;
  };
}

/**
 * `refused`: nothing arrives, and the relay says this status and code. `breaks off`: only the body is bad, so that its head may have been decided on; nothing
 * whole arrives and nothing is answered with success. `alone`: the sound part arrives, what follows it does not. `arrives`: without the headers that `lacks` names,
 * whatever their spelling.
 */
export type Expected =
  | { readonly is: "refused"; readonly status: number; readonly code: string; readonly jsonRpc?: number }
  /** Refused below the relay, by Node's parser of HTTP/2, which leaves nothing to record. */
  | { readonly is: "reset" }
  | { readonly is: "breaks off" }
  | { readonly is: "alone" }
  | { readonly is: "arrives"; readonly lacks?: readonly string[]; readonly target?: string };

/** One way to make two readers of a request disagree, or a guard look away. */
export interface Vector {
  readonly what: string;
  /** What is wrong; vectors that only differ in a value share one. Default: `what`. */
  readonly cause?: string;
  readonly request: ChangedRequest;
  readonly expected: Expected;
  /** Why it is no bad input to listeners that the class concerns. */
  readonly notFor?: Partial<Readonly<Record<ListenerKind, string>>>;
  /** Where such a listener refuses it for another reason, or has a use for it. */
  readonly at?: Partial<Readonly<Record<ListenerKind, Expected>>>;
}

/** A class of bad inputs: for each kind of listener that it concerns it, or why it does not. */
export interface VectorClass {
  readonly name: string;
  readonly concerns: Readonly<Record<ListenerKind, true | string>>;
  readonly vectors: readonly Vector[];
}

export const refused = (code: string, status = 400): Expected => ({ is: "refused", status, code });

export function causesOf({ vectors }: VectorClass): ReadonlySet<string> {
  return new Set(vectors.map(({ cause, what }) => cause ?? what));
}
