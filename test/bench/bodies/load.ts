/** Sends bodies from a thread of its own, and is the service that they go to: nothing of it is in the event loop that is measured. */
import { Agent, createServer, request as requestHttp } from "node:http";
import { urlToHttpOptions } from "node:url";
import { parentPort, workerData } from "node:worker_threads";

const { socketPath } = workerData as { readonly socketPath: string };
const port = parentPort;
if (port === null) throw new Error("not a thread");

/** Connections are kept: who a new one is from is found out anew, whatever is sent on it. */
const agent = new Agent({ keepAlive: true });
const service = createServer((request, response) => {
  request.resume();
  request.once("end", () => {
    response.writeHead(200, { "content-type": "application/json" });
    response.end('{"jsonrpc":"2.0","id":1,"result":{}}');
  });
});
service.listen(socketPath, () => port.postMessage("ready"));

export interface Sent {
  readonly url?: string;
  readonly socketPath?: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** So many at once. */
  readonly times: number;
  /** What is sent again and again meanwhile. */
  readonly beside?: string;
}

port.on("message", async ({ url, socketPath: unix, path, headers, body, times, beside }: Sent) => {
  const where = unix === undefined ? urlToHttpOptions(new URL(path, url)) : { socketPath: unix, path };
  const one = (sent = body) =>
    new Promise<string>((resolve, reject) => {
      const request = requestHttp({ ...where, method: "POST", agent, headers }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (chunk) => {
          if (text.length < 200) text += chunk;
        });
        response.once("end", () => resolve(`${response.statusCode} ${text.slice(0, 200)}`));
      });
      request.once("error", reject);
      request.end(sent);
    });
  try {
    let over = false;
    const waits: number[] = [];
    const small = async (text: string) => {
      while (!over) {
        const begun = performance.now();
        await one(text);
        waits.push(performance.now() - begun);
      }
    };
    const meanwhile = beside === undefined ? undefined : small(beside);
    const answers = await Promise.all(Array.from({ length: times }, () => one()));
    over = true;
    await meanwhile;
    waits.sort((left, right) => left - right);
    const waited = `, ${waits.length} small ones answered in ${waits[waits.length >> 1]?.toFixed(1)} ms, at most ${waits.at(-1)?.toFixed(1)} ms`;
    port.postMessage(`${(answers[0] ?? "").slice(0, 40)}${beside === undefined ? "" : waited}`);
  } catch (thrown) {
    port.postMessage(`failed: ${String(thrown)}`);
  }
});
