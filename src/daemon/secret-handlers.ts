import type { AuditLog } from "../audit/audit-log.js";
import type { Config } from "../config/config.js";
import { describeSource } from "../config/describe-egress.js";
import { secretsIn } from "../config/egress-values.js";
import type { secretRoutes } from "../control-api/secret-routes.js";
import type { Secrets } from "../secrets/secrets.js";
import type { ControlHandlers } from "./control-server.js";

/** The handlers of the secrets' routes. The record has names only. */
export function createSecretHandlers(parts: {
  readonly secrets: Secrets;
  readonly config: () => Config;
  readonly audit: AuditLog;
}): Pick<ControlHandlers, keyof typeof secretRoutes> {
  const { secrets, config, audit } = parts;
  return {
    async secrets() {
      const { egress, secrets: sources } = config();
      const reports = Object.entries(sources).map(async ([name, source]) => {
        const state = await secrets.stateOf(name);
        const users = egress.filter(({ headers }) => headers.some((header) => secretsIn(header).includes(name)));
        return {
          name,
          source: describeSource(source),
          state: state.is,
          ...(state.is === "unusable" && { why: state.why }),
          usedBy: users.map((target) => target.name),
        };
      });
      return { secrets: await Promise.all(reports) };
    },
    async setSecret({ name, value }) {
      await secrets.set(name, value);
      audit.append("secret.set", { secret: name }, { sync: true });
      return { name, source: "keychain" };
    },
    async removeSecret({ name }) {
      const removed = await secrets.remove(name);
      if (removed) audit.append("secret.removed", { secret: name }, { sync: true });
      return { name, removed };
    },
  };
}
