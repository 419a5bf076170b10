import { once } from "node:events";
import { type ClientRequest, request } from "node:http";
import { join } from "node:path";
import { afterEach, expect, it } from "vitest";
import { CodedError } from "../../src/coded-error.js";
import { routes } from "../../src/control-api/routes.js";
import { type ControlHandlers, type ControlRight, createControlServer } from "../../src/daemon/control-server.js";
import { atEnd, cleanUp, temporaryFolder } from "../attestation/processes.js";

afterEach(cleanUp);

/** A server that admits by `rightNow`, and who was answered by which right. */
async function serving(rightNow: { value: ControlRight | undefined }) {
  const path = join(temporaryFolder(), "control.sock");
  const handled: ControlRight[] = [];
  let asked = Promise.withResolvers<void>();
  const handlers = {
    ...Object.fromEntries(Object.keys(routes).map((name) => [name, () => ({})])),
    rotate: (_input: unknown, { right }: { right: ControlRight }) => {
      handled.push(right);
      return { rotated: [] };
    },
  } as unknown as ControlHandlers;
  const server = createControlServer({
    handlers,
    subscribe: () => () => {},
    admit: () => {
      asked.resolve();
      if (rightNow.value === undefined) throw new CodedError("not-administrator", "an agent");
      return rightNow.value;
    },
  });
  await server.listen(path);
  atEnd(() => server.close());
  return {
    handled,
    /** Sends the headers only; resolves when the server has asked who that is. */
    async begin(): Promise<ClientRequest> {
      asked = Promise.withResolvers();
      const { method, path: route } = routes.rotate;
      const sent = request({ socketPath: path, method, path: route, headers: { host: "agentid" } });
      sent.flushHeaders();
      await asked.promise;
      return sent;
    },
  };
}

async function statusAfter(sent: ClientRequest): Promise<number | undefined> {
  const answered = once(sent, "response");
  sent.end("{}");
  const [response] = await answered;
  response.resume();
  return response.statusCode;
}

it("who becomes an agent before the body is sent is answered as one", async () => {
  const rightNow: { value: ControlRight | undefined } = { value: "administrator" };
  const { begin, handled } = await serving(rightNow);
  expect(await statusAfter(await begin())).toBe(200);
  const turning = await begin();
  rightNow.value = "agent";
  expect(await statusAfter(turning)).toBe(200);
  expect(handled).toEqual(["administrator", "agent"]);
  rightNow.value = "administrator";
  const refused = await begin();
  rightNow.value = undefined;
  expect(await statusAfter(refused)).toBe(403);
  expect(handled).toHaveLength(2);
});

it("of who is not admitted, no body is waited for", async () => {
  const { begin, handled } = await serving({ value: undefined });
  const sent = await begin();
  const [response] = await once(sent, "response");
  sent.on("error", () => {});
  expect([response.statusCode, handled]).toEqual([403, []]);
  sent.destroy();
});
