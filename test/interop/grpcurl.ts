import { execFile } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";

const execute = promisify(execFile);
const VERSION = "v1.9.4";
/** Builds and downloads stay here; git ignores it. */
const cache = join(import.meta.dirname, "../../.cache/interop", `grpcurl-${VERSION}`);

/** Runs the official grpcurl against a socket; resolves with what it printed, rejects with what it complained about. */
export type Grpcurl = (socketPath: string, flags: readonly string[], ...what: readonly string[]) => Promise<string>;

/** grpcurl, built on demand; or what is missing on this machine, for people. */
export async function prepareGrpcurl(): Promise<{ readonly grpcurl: Grpcurl } | { readonly missing: string }> {
  const binary = join(cache, "grpcurl");
  if (!existsSync(binary)) {
    mkdirSync(cache, { recursive: true });
    const module = `github.com/fullstorydev/grpcurl/cmd/grpcurl@${VERSION}`;
    try {
      await execute("go", ["install", module], { env: { ...process.env, GOBIN: cache } });
    } catch (thrown) {
      return { missing: `grpcurl could not be built: ${String(thrown).split("\n")[0]}` };
    }
  }
  return {
    async grpcurl(socketPath, flags, ...what) {
      const { stdout } = await execute(binary, ["-plaintext", "-unix", ...flags, socketPath, ...what]);
      return stdout;
    },
  };
}
