import { KeyObject } from "node:crypto";
import { once } from "node:events";
import type { AddressInfo, Server } from "node:net";
import type { TlsIdentity, X509Svid } from "../../../src/client/spiffe/index.js";
import { SpiffeId } from "../../../src/spiffe/spiffe-id.js";
import { parseCertificate } from "../../../src/spiffe/x509-certificate.js";
import {
  type CertificateOptions,
  leafExtensions,
  makeLeaf,
  type TestCertificate,
} from "../../spiffe/test-certificates.js";

export const BILLING = "spiffe://shop.local/agents/billing";
export const PLANNER = "spiffe://shop.local/agents/planner";

/** An identity whose SVID and bundles a test can change, as a rotation does. */
export interface ChangeableIdentity extends TlsIdentity {
  present(svid: X509Svid | Error): void;
  trust(bundles: Readonly<Record<string, readonly TestCertificate[]>>): void;
  readonly listeners: number;
}

export function identityOf(
  svid: X509Svid,
  trusted: Readonly<Record<string, readonly TestCertificate[]>>,
): ChangeableIdentity {
  let current: X509Svid | Error = svid;
  let bundles = rootsOf(trusted);
  const listeners = new Set<() => void>();
  const change = () => {
    for (const listener of [...listeners]) listener();
  };
  return {
    svid() {
      if (current instanceof Error) throw current;
      return current;
    },
    bundleFor: (trustDomain) => bundles.get(trustDomain.toString()),
    onUpdate(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    present(next) {
      current = next;
      change();
    },
    trust(next) {
      bundles = rootsOf(next);
      change();
    },
    get listeners() {
      return listeners.size;
    },
  };
}

function rootsOf(trusted: Readonly<Record<string, readonly TestCertificate[]>>): Map<string, readonly Buffer[]> {
  return new Map(Object.entries(trusted).map(([name, roots]) => [name, roots.map(({ der }) => der)]));
}

/** An SVID of `id` issued by `authority`, or a certificate that only claims to be one. */
export async function issue(
  authority: TestCertificate,
  id: string,
  options: Partial<CertificateOptions> = {},
): Promise<X509Svid> {
  return svidOf(await makeLeaf(authority, { extensions: leafExtensions({ id }), ...options }), id);
}

export function svidOf(certificate: TestCertificate, id: string): X509Svid {
  const { x509, notBefore, notAfter } = parseCertificate(certificate.der);
  return {
    id: SpiffeId.parse(id),
    certificates: [certificate.der],
    privateKey: KeyObject.from(certificate.keys.pair.privateKey),
    notBefore: new Date(notBefore),
    notAfter: new Date(notAfter),
    serial: x509.serialNumber.toLowerCase(),
    hint: "",
  };
}

/** Listens on a free port of the loopback interface. */
export async function listening(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}
