import type { Mutant } from "./mutants.ts";

const kept = ["test/identity/kept-jwt-svids.test.ts"];
const callers = ["test/workload-api/callers.test.ts"];

/** Checks of JWT-SVIDs that are handed out again, and of looks that many calls share. */
export const tokenMutants: readonly Mutant[] = [
  {
    id: "token-half-life",
    check: "D24: a token is handed out again until half of its life is over, no longer",
    file: "src/identity/kept-jwt-svids.ts",
    find: "now < one.until &&",
    replace: "",
    tests: kept,
  },
  {
    id: "token-clock-back",
    check: "a token is not handed out before the time at which it was issued",
    file: "src/identity/kept-jwt-svids.ts",
    find: "now >= one.from &&",
    replace: "",
    tests: kept,
  },
  {
    id: "token-signer",
    check: "a token of an authority that signs no more is not handed out",
    file: "src/identity/kept-jwt-svids.ts",
    find: "one.signer === wanted.signer &&",
    replace: "",
    tests: kept,
  },
  {
    id: "token-audiences",
    check: "JR-2: a token is handed out again for the same list of audiences only",
    file: "src/identity/kept-jwt-svids.ts",
    find: "{JSON.stringify(audiences)}",
    replace: "{audiences.join()}",
    tests: kept,
  },
  {
    id: "token-identity",
    check: "JR-5: a token is handed out again for the same identity only",
    file: "src/identity/kept-jwt-svids.ts",
    find: "function keyOf({ name }: IdentityConfig,",
    replace: "function keyOf({ hint: name }: IdentityConfig,",
    tests: kept,
  },
  {
    id: "token-launchers",
    check: "a token is handed out again only to whom the same agents launched",
    file: "src/identity/kept-jwt-svids.ts",
    find: "launchedBy.length === 0 ?",
    replace: "true ?",
    tests: kept,
  },
  {
    id: "token-revoked",
    check: "a token from before a revocation or a change of the configuration is not handed out again",
    file: "src/identity/kept-jwt-svids.ts",
    find: "registry.onChange(() => held.clear())",
    replace: "registry.onChange(() => {})",
    tests: kept,
  },
  {
    id: "token-unrecorded",
    check: "D20: a token whose issue could not be recorded is not handed out later",
    file: "src/identity/kept-jwt-svids.ts",
    find: "if (held.get(key) === one) held.delete(key);",
    replace: "",
    tests: kept,
  },
  {
    id: "token-of-ended-launch",
    check: "the next launch as an identity gets no token of the one that has ended",
    file: "src/daemon/issuing.ts",
    find: "keeper.forgetJwtSvids(name)",
    replace: "name",
    tests: ["test/e2e/tokens.test.ts"],
  },
  {
    id: "look-not-shared-on",
    check: "ST-9: a call is answered on a look that was made after it had come",
    file: "src/workload-api/shared-looks.ts",
    find: "coming.delete(who.connection);",
    replace: "",
    tests: [...callers, "test/workload-api/shared-looks.test.ts"],
  },
  {
    id: "fields-not-mistaken",
    check: "each entry of a turn holds its own fields",
    file: "src/audit/chained-log.ts",
    find: "if (fields !== last) canonical",
    replace: "if (last === undefined) canonical",
    tests: ["test/audit/chained-log.test.ts"],
  },
];
