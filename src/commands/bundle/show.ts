import { Flags } from "@oclif/core";
import { serialiseJwtBundle } from "../../spiffe/jwt-bundle.js";
import { parseSpiffeBundle } from "../../spiffe/spiffe-bundle.js";
import { serialiseX509BundlePem } from "../../spiffe/x509-bundle.js";
import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

const FORMATS = ["spiffe", "pem", "jwks"] as const;

export default class BundleShow extends AgentidCommand {
  static override summary = "Print a trust bundle: this trust domain's, or that of another one";
  static override description =
    "spiffe: the bundle as trust domains exchange it. pem: the X.509 authorities. jwks: the keys of JWT-SVIDs as a JWK Set.";
  static override examples = [
    "<%= config.bin %> <%= command.id %> > shop.local.json",
    "<%= config.bin %> <%= command.id %> --format pem --trust-domain other.local",
  ];
  static override flags = {
    format: Flags.option({ summary: "what to print", options: FORMATS, default: "spiffe" as const })(),
    "trust-domain": Flags.string({ summary: "another trust domain (default: this one)" }),
  };

  async run(): Promise<unknown> {
    const { flags } = await this.parse(BundleShow);
    const trustDomain = flags["trust-domain"];
    const shown = await runningDaemon(flags.project).call("bundle", trustDomain === undefined ? {} : { trustDomain });
    this.log(formatBundle(shown.document, flags.format));
    return shown;
  }
}

function formatBundle(document: string, format: (typeof FORMATS)[number]): string {
  switch (format) {
    case "spiffe":
      return document;
    case "pem":
      return serialiseX509BundlePem(parseSpiffeBundle(document).x509Authorities).trimEnd();
    case "jwks":
      return serialiseJwtBundle({ keys: parseSpiffeBundle(document).jwtKeys });
  }
}
