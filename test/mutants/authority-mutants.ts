import type { Mutant } from "./mutants.ts";

const revocations = ["test/identity/revocations.test.ts"];
const commands = ["test/identity/authority-commands.test.ts"];

/** Checks of authorities by command, of revocation and of the upstream authority. */
export const authorityMutants: readonly Mutant[] = [
  {
    id: "revoked-issue",
    check: "nothing is issued to a revoked identity",
    file: "src/identity/kept-svids.ts",
    find: "if (registry.isRevoked(id)) {",
    replace: "if (false) {",
    tests: revocations,
  },
  {
    id: "revoked-serial",
    check: "a revoked certificate is not believed, also after its identity was given back",
    file: "src/identity/revocations.ts",
    find: "if (certificates.size === 0) return undefined;",
    replace: "return undefined;",
    tests: revocations,
  },
  {
    id: "authority-too-fresh",
    check: "verifiers have a prepared authority for a while before it signs",
    file: "src/identity/authority-commands.ts",
    find: "if (hurried || now >= from) return;",
    replace: "return;",
    tests: commands,
  },
  {
    id: "authority-tainted",
    check: "what a tainted authority has signed is not handed out",
    file: "src/identity/kept-svids.ts",
    find: "isValid(svid) && authority.vouches(signedBy.keyId)",
    replace: "isValid(svid)",
    tests: commands,
  },
  {
    id: "upstream-key",
    check: "the upstream authority's key belongs to its certificate",
    file: "src/identity/upstream-authority.ts",
    find: "if (!signer.x509.checkPrivateKey(privateKey)) {",
    replace: "if (false) {",
    tests: ["test/identity/upstream-authority.test.ts"],
  },
  {
    id: "p256-scalar-range",
    check: "a private key is a scalar below the curve's order, all of them as likely",
    file: "src/identity/p256-key.ts",
    find: "!scalar.equals(ZERO) && scalar.compare(ORDER) < 0",
    replace: "!scalar.equals(ZERO)",
    tests: ["test/identity/p256-key.test.ts"],
  },
  {
    id: "random-octets-once",
    check: "what was drawn for one key is drawn for no other",
    file: "src/identity/random-stock.ts",
    find: "stock = stock.subarray(size);",
    replace: "",
    tests: ["test/identity/random-stock.test.ts"],
  },
];
