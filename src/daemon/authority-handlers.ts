import { X509Certificate } from "node:crypto";
import type { authorityRoutes } from "../control-api/authority-routes.js";
import type { AuthorityReport } from "../identity/authority-commands.js";
import type { Revocations } from "../identity/revocations.js";
import type { TrustDomainAuthority } from "../identity/trust-domain-authority.js";
import type { ControlHandlers } from "./control-server.js";
import type { Revoking } from "./revoking.js";

/** The handlers of the authorities' routes and of revocation. */
export function createAuthorityHandlers(parts: {
  readonly authority: TrustDomainAuthority;
  readonly revocations: Revocations;
  readonly revoking: Revoking;
}): Pick<ControlHandlers, keyof typeof authorityRoutes> {
  const { authority, revocations, revoking } = parts;
  return {
    authorities: () => ({ authorities: authority.generations.map(wireForm) }),
    prepareAuthority: () => wireForm(authority.prepare()),
    activateAuthority: ({ hurried }) => wireForm(authority.activate({ hurried })),
    taintAuthority: ({ keyId }) => wireForm(authority.taint(keyId)),
    revokeAuthority({ keyId }) {
      const revoked = authority.revoke(keyId);
      // Below an upstream root the bundle still vouches for it: its certificate is named instead.
      if (revoked.upstreamChain.length > 0) {
        const { serialNumber: serial } = new X509Certificate(revoked.x509Certificate);
        revocations.revokeCertificates([{ serial, authority: "upstream", notAfter: revoked.notAfter }]);
      }
      return { keyId: revoked.keyId, notAfter: revoked.notAfter.toISOString() };
    },
    revoke: ({ id, forSeconds, untilRestart }) => revoking.revoke(id, { forSeconds, untilRestart }),
    undoRevocation: ({ id }) => revoking.undo(id),
  };
}

function wireForm({ witKeyId, notBefore, notAfter, ...rest }: AuthorityReport) {
  return {
    ...rest,
    ...(witKeyId === undefined ? {} : { witKeyId }),
    notBefore: notBefore.toISOString(),
    notAfter: notAfter.toISOString(),
  };
}
