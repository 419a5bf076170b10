import { z } from "zod";
import { facts } from "./facts-schema.js";
import { labels } from "./labels-schema.js";
import { launch } from "./launch-schema.js";
import { text } from "./schema-text.js";
import { checkDnsName, checkHint, checkTrustDomain } from "./values.js";

/** One entry below `identities`. */
export const identity = z.strictObject({
  launch: launch.optional(),
  ...facts,
  service: z
    .string()
    .meta({
      description: "Name of the service whose relay leg speaks as this identity. A service has exactly one identity.",
      examples: ["payments"],
    })
    .optional(),
  dnsNames: z
    .array(text(checkDnsName))
    .meta({
      description: "DNS names to put into the X.509-SVID beside the SPIFFE ID.",
      examples: [["payments.localhost"]],
    })
    .optional(),
  hint: text(checkHint, {
    description: "Tells a workload with several identities what this one is for; the Workload API hands it on.",
    default: "",
    examples: ["internal"],
  }).optional(),
  labels: labels.optional(),
  shadow: z
    .boolean()
    .meta({
      description:
        "What no rule allows this identity is let through all the same and recorded as such; what a rule denies is denied. For finding out which rules it needs.",
      default: false,
    })
    .optional(),
  federatesWith: z
    .array(text(checkTrustDomain))
    .meta({
      description:
        "Other trust domains that its workloads deal with: they are given the bundles of these alone, and the relay leg of its `service` lets in workloads of these alone. Without it: of all whose bundles are known here.",
      examples: [["bank.local"]],
    })
    .optional(),
});
