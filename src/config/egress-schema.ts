import { z } from "zod";
import {
  checkEgressUrl,
  checkInjectedHeader,
  checkInjectedValue,
  checkSecretName,
  needsMoreThanConnect,
  needsPrivate,
  SECRET_NAME_PATTERN,
} from "./egress-values.js";
import { argv, text } from "./schema-text.js";
import { checkPath, checkVariableName } from "./values.js";

/** The part of `agentid.yaml` that is about what lies outside, and the keys for it. */

const header = z.record(z.string(), z.string()).superRefine((headers, context) => {
  const names = Object.keys(headers).map((name) => name.toLowerCase());
  for (const [index, [name, value]] of Object.entries(headers).entries()) {
    const twice = names.indexOf(name.toLowerCase()) < index ? "the same header stands above it" : undefined;
    const wrong = twice ?? checkInjectedHeader(name) ?? checkInjectedValue(name, value);
    if (wrong !== undefined) context.addIssue({ code: "custom", message: wrong, path: [name] });
  }
});

/** One entry below `egress`. */
export const egressTarget = z
  .strictObject({
    url: text(checkEgressUrl, {
      description:
        "Where the target is. A path in it is kept: what callers ask for comes below it, and rules see what callers ask for. `http://` only on this machine and with `private: true`.",
      examples: ["https://api.openai.com"],
      pattern: "^https?://[^?#@]+$",
    }),
    header: header
      .meta({
        description:
          // biome-ignore lint/suspicious/noTemplateCurlyInString: the file's own notation
          "Headers that the relay adds to every call; `${secret:NAME}` stands for a secret, which is fetched when the call is made. What callers send under these names, and other credentials of theirs, does not go out.",
        // biome-ignore lint/suspicious/noTemplateCurlyInString: the file's own notation
        examples: [{ Authorization: "Bearer ${secret:openai}" }],
      })
      .optional(),
    ca: text(checkPath, {
      description:
        "PEM file of the authorities that the target's certificate must lead to, instead of those of the Web PKI. Read when the target is opened.",
      examples: ["certs/ca.pem"],
    }).optional(),
    private: z
      .boolean()
      .meta({
        description:
          "The target may be inside: this machine, a private network, another special address. Without it such an address is refused, whatever name leads to it.",
        default: false,
      })
      .optional(),
    listen: z
      .int()
      .min(1)
      .max(65_535)
      .meta({
        description: "Loopback port where callers find the target; without it as for services.",
        examples: [18443],
      })
      .optional(),
    connect: z
      .boolean()
      .meta({
        description:
          "Programs reach the target with their own TLS, by CONNECT through `HTTPS_PROXY`. Host and port are all that is decided by: no `header`, no `ca`, no path in `url`, and rules have the one action `connect`.",
        default: false,
      })
      .optional(),
  })
  .superRefine((target, context) => {
    if (checkEgressUrl(target.url) !== undefined) return;
    const more = target.connect === true ? needsMoreThanConnect(target) : undefined;
    if (more !== undefined) context.addIssue({ code: "custom", message: more.why, path: [more.key] });
    const wrong = needsPrivate(target.url, target.private === true);
    if (wrong !== undefined) context.addIssue({ code: "custom", message: wrong, path: ["url"] });
  });

/** The listener for CONNECT. */
export const proxy = z.strictObject({
  listen: z
    .int()
    .min(1)
    .max(65_535)
    .meta({ description: "Its loopback port; without it as for services.", examples: [18080] })
    .optional(),
});

/** One entry below `secrets`. */
export const secretSource = z
  .strictObject({
    keychain: z
      .literal(true)
      .meta({
        description: "The system's keychain, where `agentid secret set` puts it. The default.",
        examples: [true],
      })
      .optional(),
    file: text(checkPath, {
      description: "File with lines `KEY=VALUE` that nobody but its owner may read (mode 0600).",
      examples: [".env.local"],
    }).optional(),
    key: text(checkVariableName, { description: "Which line of `file`.", examples: ["OPENAI_API_KEY"] }).optional(),
    command: argv
      .meta({
        description:
          "Command that prints the secret, run in the project's folder, without a shell, for at most 10 seconds.",
        examples: [["op", "read", "op://dev/openai/key"]],
      })
      .optional(),
  })
  .refine(({ keychain, file, command }) => [keychain, file, command].filter((one) => one !== undefined).length === 1, {
    message: "needs exactly one of keychain, file and command",
  })
  .refine(({ file, key }) => (file === undefined) === (key === undefined), { message: "file and key go together" })
  .meta({ oneOf: [{ required: ["keychain"] }, { required: ["file", "key"] }, { required: ["command"] }] });

export const secrets = z
  .record(z.string(), secretSource)
  .superRefine((sources, context) => {
    for (const name of Object.keys(sources)) {
      const wrong = checkSecretName(name);
      if (wrong !== undefined) context.addIssue({ code: "custom", message: wrong, path: [name] });
    }
  })
  .meta({
    description:
      "Where the secrets are that `egress` names, for those that are not in the keychain. They are fetched when a call needs them, never handed to an agent.",
    propertyNames: { pattern: SECRET_NAME_PATTERN.source },
  });

export type EgressEntry = z.infer<typeof egressTarget>;
export type SecretEntry = z.infer<typeof secretSource>;
