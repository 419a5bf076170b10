import "reflect-metadata";
import { generateKeyPairSync, webcrypto } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type handleServerStreamingCall, type handleUnaryCall, Server, ServerCredentials, status } from "@grpc/grpc-js";
import type { Jwk } from "../../src/spiffe/jwt-bundle.js";
import { parseAndValidateJwtSvid } from "../../src/spiffe/jwt-svid.js";
import { ServerReflectionService } from "../../src/workload-api/generated/grpc/reflection/v1/reflection.js";
import { type HealthServer, HealthService } from "../../src/workload-api/generated/health.js";
import {
  type JWTBundlesResponse,
  type JWTSVIDResponse,
  SpiffeWorkloadAPIService,
  type ValidateJWTSVIDResponse,
  type WITSVIDRequest,
  type X509BundlesResponse,
  X509SVIDRequest,
  type X509SVIDResponse,
} from "../../src/workload-api/generated/workload.js";
import { leafExtensions, makeAuthority, makeLeaf, type TestCertificate } from "../spiffe/test-certificates.js";
import { type Behaviour, type Faults, FEDERATED, FIRST, lawful, SECOND, TRUST_DOMAIN } from "./behaviour.js";
import {
  authorityOf,
  headerRule,
  inAnHour,
  publicJwk,
  Refused,
  randomSerial,
  reflection,
  token,
  unknownMethod,
  valid,
  witSvid,
} from "./scripted-parts.js";

/**
 * A small Workload API that keeps every statement that the suite checks, and each of whose decisions a test can replace by a wrong one.
 * Of the real server it uses the pure values only.
 */

export interface ScriptedServer {
  /** As gRPC names it. */
  readonly target: string;
  rotate(): Promise<void>;
  remove(id: string): Promise<void>;
  restore(id: string): Promise<void>;
  close(): void;
}

/** Serves on a socket of its own until it is closed. */
export async function runScriptedServer(
  faults: Faults = {},
  credentials = ServerCredentials.createInsecure(),
): Promise<ScriptedServer> {
  const b: Behaviour = { ...lawful, ...faults, refusals: { ...lawful.refusals, ...faults.refusals } };
  const directory = mkdtempSync(join(tmpdir(), "agentid-cf-"));
  const authority = await makeAuthority({ ...valid(), ...authorityOf("CN=root", TRUST_DOMAIN), ...b.authority() });
  const other = await makeAuthority({ ...valid(), ...authorityOf("CN=partner", FEDERATED) });
  const stranger = await makeAuthority({ ...valid(), ...authorityOf("CN=root", TRUST_DOMAIN) });
  const jwtKey = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
  const partnerKey = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
  const bundles: Record<string, { keys: Jwk[] }> = {
    [TRUST_DOMAIN]: { keys: [publicJwk(jwtKey, "own")] },
    [FEDERATED]: { keys: [publicJwk(partnerKey, "partner")] },
  };

  const all = [FIRST, SECOND];
  let ids = all;
  let leaves = await issue(all);
  const listeners = new Set<() => void>();
  const issued = new Set<string>();
  let streams = 0;

  async function issue(of: readonly string[]): Promise<Map<string, TestCertificate>> {
    const made = of.map(async (id) => {
      const options = { ...valid(), serialNumber: randomSerial(), extensions: leafExtensions({ id }), ...b.leaf(id) };
      return [id, await makeLeaf(authority, options)] as const;
    });
    return new Map(await Promise.all(made));
  }
  const changed = (): void => {
    if (b.follows) for (const listener of [...listeners]) listener();
  };
  const requireIdentity = (): void => {
    if (ids.length === 0) throw new Refused(b.refusals.identity, "no identity");
  };

  async function x509(): Promise<X509SVIDResponse> {
    requireIdentity();
    const svids = ids.map(async (id) => {
      const leaf = leaves.get(id) ?? authority;
      const key = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", leaf.keys.pair.privateKey));
      return {
        spiffeId: id,
        x509Svid: leaf.der,
        x509SvidKey: key,
        bundle: authority.der,
        hint: id.split("/").at(-1) ?? "",
      };
    });
    const message = { svids: await Promise.all(svids), crl: [], federatedBundles: { [FEDERATED]: other.der } };
    return b.x509(message, { authority, other, stranger });
  }
  async function x509Bundles(): Promise<X509BundlesResponse> {
    requireIdentity();
    return b.x509Bundles({ crl: [], bundles: { [TRUST_DOMAIN]: authority.der, [FEDERATED]: other.der } });
  }
  async function jwtBundles(): Promise<JWTBundlesResponse> {
    failIf("FetchJWTBundles");
    requireIdentity();
    const sets = Object.entries(b.jwtBundles(structuredClone(bundles)));
    return { bundles: Object.fromEntries(sets.map(([key, set]) => [key, Buffer.from(JSON.stringify(set))])) };
  }
  const failIf = (rpc: keyof Behaviour["fails"]): void => {
    const code = b.fails[rpc];
    if (code !== undefined) throw new Refused(code, "scripted");
  };
  function wanted(text: string): readonly string[] {
    requireIdentity();
    if (text === "") return ids;
    let id: string;
    try {
      id = b.parseId(text).toString();
    } catch {
      throw new Refused(b.refusals.id, "no SPIFFE ID");
    }
    if (!ids.includes(id)) throw new Refused(b.refusals.entitlement, "not entitled");
    return [id];
  }
  const tokenOf = (id: string, audience: readonly string[]): string => {
    const header = b.tokenHeader({ alg: "ES256", kid: "own", typ: "JWT" });
    return token(header, b.tokenClaims({ sub: id, aud: audience, exp: inAnHour() }), jwtKey);
  };

  function stream<Request, Message>(
    read: (again: boolean, request: Request) => Promise<Message>,
    kind: "svids" | "bundles",
  ): handleServerStreamingCall<Request, Message> {
    return (call) => {
      streams += 1;
      if (streams > b.streamsInItsLife) {
        call.emit("error", new Refused(status.RESOURCE_EXHAUSTED, "too many streams"));
        return;
      }
      let opened = false;
      const send = async (): Promise<void> => {
        try {
          const message = await read(opened, call.request);
          opened = true;
          call.write(message);
          if (kind === "bundles" && b.repeatsBundles) call.write(message);
          if (kind === "bundles" && b.closesBundleStreams) call.end();
        } catch (thrown) {
          if (!(thrown instanceof Refused)) throw thrown;
          if (!b.endsStreamsWithoutIdentity && opened) return;
          call.emit("error", thrown);
        }
      };
      // Bundles do not change here: only access to them does.
      const again = (): void => void (kind === "svids" || ids.length === 0 ? send() : undefined);
      listeners.add(again);
      call.once("close", () => listeners.delete(again));
      call.once("cancelled", () => listeners.delete(again));
      setTimeout(send, b.firstMessageAfterMs);
    };
  }
  function unary<Request, Response>(answer: (request: Request) => Response): handleUnaryCall<Request, Response> {
    return (call, callback) => {
      try {
        callback(null, answer(call.request));
      } catch (thrown) {
        callback(thrown instanceof Refused ? thrown : new Refused(status.INTERNAL, String(thrown)));
      }
    };
  }

  const server = new Server({ interceptors: [headerRule(b)], "grpc.max_concurrent_streams": 100 });
  server.addService(serviceOf(b), {
    fetchX509Svid: stream(async (again) => (again ? b.followUp(await x509()) : x509()), "svids"),
    fetchX509Bundles: stream(x509Bundles, "bundles"),
    fetchJwtBundles: stream(jwtBundles, "bundles"),
    fetchJwtsvid: unary(({ audience, spiffeId }: { audience: string[]; spiffeId: string }): JWTSVIDResponse => {
      failIf("FetchJWTSVID");
      if (audience.length === 0) throw new Refused(b.refusals.audience, "audience must be specified");
      const svids = wanted(spiffeId).map((id) => ({ spiffeId: id, svid: tokenOf(id, audience), hint: "" }));
      for (const { svid } of svids) issued.add(svid);
      return b.jwt({ svids });
    }),
    validateJwtsvid: unary(({ audience, svid }: { audience: string; svid: string }): ValidateJWTSVIDResponse => {
      failIf("ValidateJWTSVID");
      if (ids.length === 0 && b.refusals.validateWithoutIdentity !== status.OK) requireIdentity();
      if (audience === "" || svid === "")
        throw new Refused(b.refusals.arguments, "audience and svid must be specified");
      const strictly = () => parseAndValidateJwtSvid(svid, audience, ({ id }) => bundles[id.toString()], new Date());
      try {
        const { id, claims, audience: aud } = b.validate(svid, audience, strictly, issued.has(svid));
        return b.validated({ spiffeId: id.toString(), claims: { ...claims, aud: [...aud] } });
      } catch (thrown) {
        if (thrown instanceof Refused) throw thrown;
        throw new Refused(b.refusals.token, String(thrown));
      }
    }),
    fetchWitsvid: stream(async (_again, { spiffeId }: WITSVIDRequest) => {
      failIf("FetchWITSVID");
      return b.wit({ svids: wanted(spiffeId).map((id) => witSvid(id, jwtKey)) });
    }, "svids"),
    fetchWitBundles: stream(async () => {
      failIf("FetchWITBundles");
      requireIdentity();
      return b.witBundles({
        bundles: { [TRUST_DOMAIN]: JSON.stringify({ keys: [{ ...publicJwk(jwtKey, "w"), use: "wit-svid" }] }) },
      });
    }, "bundles"),
  });
  server.addService(HealthService, { check: unary(() => ({ status: 1 })) } as unknown as HealthServer);
  if (b.reflected !== undefined) server.addService(ServerReflectionService, reflection(b.reflected));
  if (b.unknownMethod !== undefined) server.addService(...unknownMethod(b.unknownMethod));
  const target = `unix:${join(directory, "api.sock")}`;
  await new Promise<void>((resolve, reject) =>
    server.bindAsync(target, credentials, (error) => (error === null ? resolve() : reject(error))),
  );
  return {
    target,
    async rotate() {
      leaves = await issue(all);
      changed();
    },
    async remove(id) {
      ids = ids.filter((one) => one !== id);
      changed();
    },
    async restore(id) {
      ids = all.filter((one) => one === id || ids.includes(one));
      changed();
    },
    close() {
      server.forceShutdown();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** The standard's service; one that takes no unknown fields fails to read a request that is not empty. */
function serviceOf({ takesUnknownFields }: Behaviour): typeof SpiffeWorkloadAPIService {
  const { fetchX509Svid, ...others } = SpiffeWorkloadAPIService;
  const requestDeserialize = (bytes: Buffer): X509SVIDRequest => {
    if (!takesUnknownFields && bytes.length > 0) throw new Error("unknown field");
    return X509SVIDRequest.decode(bytes);
  };
  return { ...others, fetchX509Svid: { ...fetchX509Svid, requestDeserialize } };
}
