import { chmodSync } from "node:fs";
import type { Server } from "node:net";

/** Listens at `path` with mode 0600. Rejects with what Node says. */
export function listenPrivately(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    // The umask closes the moment between bind and chmod in which others could connect.
    const umask = process.umask(0o177);
    server.listen(path, () => {
      chmodSync(path, 0o600);
      server.off("error", reject);
      resolve();
    });
    process.umask(umask);
  });
}
