import { CodedError } from "../coded-error.js";

export type SpiffeIdErrorCode =
  | "spiffe-id-empty"
  | "spiffe-id-scheme"
  | "spiffe-id-trust-domain-missing"
  | "spiffe-id-trust-domain-character"
  | "spiffe-id-trust-domain-too-long"
  | "spiffe-id-segment-empty"
  | "spiffe-id-segment-dots"
  | "spiffe-id-segment-character"
  | "spiffe-id-trailing-slash"
  | "spiffe-id-too-long";

/** A string is not a SPIFFE ID or not a trust domain name. One code for each rule of SPIFFE-ID §2. */
export class SpiffeIdError extends CodedError<SpiffeIdErrorCode> {
  override readonly name = "SpiffeIdError";
}

const SCHEME = "spiffe://";
const MAX_TRUST_DOMAIN_BYTES = 255;
const MAX_ID_BYTES = 2048;

/**
 * The name of a trust domain, `shop.local`. A value in hand is a valid name: `TrustDomain.parse` is the only way to one.
 * SPIFFE-ID §2.1.
 */
export class TrustDomain {
  readonly name: string;

  private constructor(name: string) {
    this.name = name;
  }

  /** The trust domain named by `name` (`shop.local`) or by the SPIFFE ID `spiffe://shop.local[/path]`. Throws SpiffeIdError. */
  static parse(text: string): TrustDomain {
    if (text.includes("://")) return SpiffeId.parse(text).trustDomain;
    checkTrustDomainName(text, text);
    return new TrustDomain(text);
  }

  /** @internal Only for SpiffeId, which has checked the name. */
  static checked(name: string): TrustDomain {
    return new TrustDomain(name);
  }

  /** The SPIFFE ID of the trust domain itself, `spiffe://shop.local`. */
  get id(): SpiffeId {
    return SpiffeId.parse(SCHEME + this.name);
  }

  equals(other: TrustDomain): boolean {
    return this.name === other.name;
  }

  toString(): string {
    return this.name;
  }
}

/**
 * A SPIFFE ID. A value in hand is a valid ID: `SpiffeId.parse` and `SpiffeId.of` are the only ways to one.
 * SPIFFE-ID §2–2.4; where §2.1 and §2.4 disagree about upper case, it is refused, as go-spiffe does.
 */
export class SpiffeId {
  readonly trustDomain: TrustDomain;
  /** `""` for the trust domain's own ID, else `/agents/billing`. */
  readonly path: string;
  /** Asked for many times in each call. */
  #text: string | undefined;

  private constructor(trustDomain: TrustDomain, path: string) {
    this.trustDomain = trustDomain;
    this.path = path;
  }

  /** Parses `spiffe://trust-domain/path`. IDs longer than 2048 bytes are parsed (§2.3 sets only a minimum). Throws SpiffeIdError. */
  static parse(text: string): SpiffeId {
    if (text === "") throw new SpiffeIdError("spiffe-id-empty", "SPIFFE ID is empty");
    if (!text.startsWith(SCHEME)) {
      throw new SpiffeIdError("spiffe-id-scheme", `SPIFFE ID must start with "spiffe://": ${JSON.stringify(text)}`);
    }
    const slash = text.indexOf("/", SCHEME.length);
    const name = slash === -1 ? text.slice(SCHEME.length) : text.slice(SCHEME.length, slash);
    const path = slash === -1 ? "" : text.slice(slash);
    checkTrustDomainName(name, text);
    checkPath(path, text);
    return new SpiffeId(TrustDomain.checked(name), path);
  }

  /**
   * The ID of `path` (`agents/billing` or `/agents/billing`) in `trustDomain`.
   * We refuse to make IDs over 2048 bytes or trust domain names over 255 (§2.1, §2.3). Throws SpiffeIdError.
   */
  static of(trustDomain: TrustDomain, path: string): SpiffeId {
    const absolute = path === "" || path.startsWith("/") ? path : `/${path}`;
    const text = SCHEME + trustDomain.name + absolute;
    checkPath(absolute, text);
    if (trustDomain.name.length > MAX_TRUST_DOMAIN_BYTES) {
      throw new SpiffeIdError(
        "spiffe-id-trust-domain-too-long",
        `trust domain is longer than ${MAX_TRUST_DOMAIN_BYTES} bytes`,
      );
    }
    if (text.length > MAX_ID_BYTES) {
      throw new SpiffeIdError("spiffe-id-too-long", `SPIFFE ID is longer than ${MAX_ID_BYTES} bytes`);
    }
    return new SpiffeId(trustDomain, absolute);
  }

  /** The path without its leading slash, as `agentid.yaml` and policies write it: `agents/billing`. */
  get name(): string {
    return this.path.slice(1);
  }

  memberOf(trustDomain: TrustDomain): boolean {
    return this.trustDomain.equals(trustDomain);
  }

  equals(other: SpiffeId): boolean {
    return this.path === other.path && this.trustDomain.equals(other.trustDomain);
  }

  toString(): string {
    this.#text ??= SCHEME + this.trustDomain.name + this.path;
    return this.#text;
  }

  toJSON(): string {
    return this.toString();
  }
}

function checkTrustDomainName(name: string, whole: string): void {
  if (name === "")
    throw new SpiffeIdError("spiffe-id-trust-domain-missing", `trust domain is missing: ${JSON.stringify(whole)}`);
  for (const character of name) {
    if (!/^[a-z0-9._-]$/.test(character)) {
      throw new SpiffeIdError(
        "spiffe-id-trust-domain-character",
        `trust domain may hold only a-z, 0-9, dot, dash and underscore, not ${JSON.stringify(character)}: ${JSON.stringify(whole)}`,
      );
    }
  }
}

function checkPath(path: string, whole: string): void {
  if (path === "") return;
  const segments = path.slice(1).split("/");
  segments.forEach((segment, index) => {
    if (segment === "") {
      const last = index === segments.length - 1;
      throw new SpiffeIdError(
        last ? "spiffe-id-trailing-slash" : "spiffe-id-segment-empty",
        `SPIFFE ID path ${last ? "must not end with a slash" : "has an empty segment"}: ${JSON.stringify(whole)}`,
      );
    }
    if (segment === "." || segment === "..") {
      throw new SpiffeIdError(
        "spiffe-id-segment-dots",
        `SPIFFE ID path must not hold "." or "..": ${JSON.stringify(whole)}`,
      );
    }
    if (!/^[a-zA-Z0-9._-]+$/.test(segment)) {
      throw new SpiffeIdError(
        "spiffe-id-segment-character",
        `SPIFFE ID path segments may hold only letters, digits, dot, dash and underscore: ${JSON.stringify(whole)}`,
      );
    }
  });
}
