import { fork } from "node:child_process";
import { once } from "node:events";
import { credentials, Metadata } from "@grpc/grpc-js";
import { SpiffeWorkloadAPIClient } from "../../../src/workload-api/generated/workload.js";

/** The server of `server.ts`, with `count` identities, in a process of its own. */
export async function startServer(count: number) {
  const child = fork(new URL("./server.ts", import.meta.url), [String(count)], {
    execArgv: ["--import", new URL("../../source-hooks.ts", import.meta.url).href],
  });
  const [ready] = (await once(child, "message")) as [{ answer: { path: string; barePath: string } }];
  return {
    ...ready.answer,
    async tell<Answer>(command: string): Promise<Answer> {
      child.send(command);
      const [{ answer }] = (await once(child, "message")) as [{ answer: Answer }];
      return answer;
    },
    async stop(): Promise<void> {
      const exited = once(child, "exit");
      await this.tell("stop");
      await exited;
    },
  };
}

/** A client on a connection of its own. */
export function connectTo(path: string): SpiffeWorkloadAPIClient {
  return new SpiffeWorkloadAPIClient(`unix:${path}`, credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
  });
}

export function secure(): Metadata {
  const metadata = new Metadata();
  metadata.set("workload.spiffe.io", "true");
  return metadata;
}
