import { BodyBytes } from "../http/body-bytes.js";
import type { IncomingRequest } from "../http/incoming-request.js";
import { Refusal } from "../http/refusal.js";
import { headerOf } from "../http/request-headers.js";
import type { Clock } from "../platform/clock.js";

const MAX_BODY_BYTES = 1024 * 1024;
const BODY_DEADLINE_MS = 10_000;

/** Throws Refusal: `content-type` (400, as the certification scenario asks), `content-encoding` (400). */
export function checkBodyHeaders({ rawHeaders }: IncomingRequest): void {
  const type = headerOf(rawHeaders, "content-type") ?? "";
  if (type !== "application/json" && !/^application\/json(?:\s*;\s*charset="?utf-8"?)?\s*$/i.test(type)) {
    throw new Refusal("content-type", 400, "the body must be application/json in UTF-8");
  }
  if (headerOf(rawHeaders, "content-encoding") !== undefined) {
    throw new Refusal("content-encoding", 400, "an encoded body is not decoded: send it plain");
  }
}

/** The whole body. Rejects with Refusal `body-too-large` (413), `body-slow` (408), `http-malformed` where it breaks off. */
export function readBody(request: IncomingRequest, clock: Clock): Promise<BodyBytes> {
  return new Promise((resolve, reject) => {
    let body = new BodyBytes();
    const refuse = (refusal: Refusal) => {
      cancel();
      body = new BodyBytes();
      request.drop();
      reject(refusal);
    };
    const cancel = clock.after(BODY_DEADLINE_MS, () =>
      refuse(new Refusal("body-slow", 408, "the body did not arrive in time")),
    );
    request.read({
      data(chunk) {
        body.add(chunk);
        if (body.length > MAX_BODY_BYTES) refuse(new Refusal("body-too-large", 413, "a body may have at most 1 MiB"));
      },
      end() {
        cancel();
        resolve(body);
      },
      failed: () => refuse(new Refusal("http-malformed", 400, "the body broke off")),
    });
  });
}
