import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { Refusal } from "../http/refusal.js";
import type { Json, JsonObject } from "../http/strict-json.js";
import type { Pause } from "../platform/turns.js";
import { jsonInTurns } from "../policy/request-digest.js";
import { isObject } from "./request-shape.js";

/** Which part of the results is asked for. */
export interface Page {
  /** Where among all candidates to go on. */
  readonly from: number;
  readonly limit: number;
}

export interface PageTokens {
  /** Throws Refusal `page-invalid` (400): not a token of ours, or the request, the policies or the entities are not those it was given for. */
  pageOf(body: JsonObject, binding: string): Page;
  tokenFor(page: Page, binding: string): string;
}

const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 1_000;
const TOKEN = /^([0-9]{1,10})\.([0-9]{1,4})\.([A-Za-z0-9_-]{43})$/;

/** Tokens that only this process makes: place and limit, sealed together with all that the search is about. */
export function createPageTokens(key: Buffer = randomBytes(32)): PageTokens {
  const seal = (from: string, limit: string, binding: string): Buffer =>
    createHmac("sha256", key).update(`${from}.${limit}.${binding}`).digest();
  return {
    pageOf({ page }, binding) {
      if (page === undefined) return { from: 0, limit: DEFAULT_LIMIT };
      if (!isObject(page)) throw new Refusal("request-invalid", 400, "page must be an object");
      const asked = limitOf(page.limit);
      const { token } = page;
      if (token === undefined || token === "") return { from: 0, limit: asked ?? DEFAULT_LIMIT };
      const [, from = "", limit = "", sealed = ""] = (typeof token === "string" && TOKEN.exec(token)) || [];
      if (sealed === "") throw new Refusal("page-invalid", 400, "page.token is not one of ours");
      if (!timingSafeEqual(seal(from, limit, binding), Buffer.from(sealed, "base64url"))) {
        throw new Refusal(
          "page-invalid",
          400,
          "page.token is of another search, or the policies have changed: begin anew",
        );
      }
      if (asked !== undefined && asked !== Number(limit)) {
        throw new Refusal("page-invalid", 400, "page.limit differs from that of the page before");
      }
      return { from: Number(from), limit: Number(limit) };
    },
    tokenFor({ from, limit }, binding) {
      return `${from}.${limit}.${seal(String(from), String(limit), binding).toString("base64url")}`;
    },
  };
}

/** What a token is bound to: who searches, for what, by which policies, among whom. */
export async function bindingOf(
  kind: string,
  point: string,
  body: JsonObject,
  digests: readonly string[],
  pause?: Pause,
): Promise<string> {
  const { page, ...rest } = body;
  // "Apart from the token, all values from the initial request MUST remain identical"; the limit is in the token.
  const properties = isObject(page) ? (page.properties ?? null) : null;
  const bound = [kind, point, rest, properties, ...digests];
  const text = pause === undefined ? JSON.stringify(bound) : await jsonInTurns(bound, pause);
  return createHash("sha256").update(text).digest("base64url");
}

function limitOf(limit: Json | undefined): number | undefined {
  if (limit === undefined) return undefined;
  if (typeof limit !== "number" || !Number.isInteger(limit) || limit < 0) {
    throw new Refusal("request-invalid", 400, "page.limit must be a whole number from 0 on");
  }
  return Math.min(limit, MAX_LIMIT);
}
