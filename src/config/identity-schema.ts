import { z } from "zod";
import { facts } from "./facts-schema.js";
import { launch } from "./launch-schema.js";
import { text } from "./schema-text.js";
import { checkDnsName, checkHint } from "./values.js";

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
});
