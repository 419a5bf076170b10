import { SecretError } from "./secret-error.js";

const LONGEST = 8_192;

/**
 * `text` as a secret that can stand in a header: one final line break of whoever wrote or printed it is none of it. Throws SecretError
 * `secret-malformed`, which says what is wrong and not what the value is.
 */
export function secretValue(name: string, text: string): string {
  const value = text.replace(/\r?\n$/, "");
  const wrong = whyMalformed(value);
  if (wrong === undefined) return value;
  throw new SecretError("secret-malformed", `the secret ${name} cannot be sent in a header: ${wrong}`);
}

function whyMalformed(value: string): string | undefined {
  if (value === "") return "it is empty";
  if (value.length > LONGEST) return `it is longer than ${LONGEST} characters`;
  if (/[\r\n]/.test(value)) return "it holds a line break";
  // RFC 9110 §5.5: CR, LF and NUL are dangerous, other controls invalid; Node writes headers as Latin-1.
  if (/(?!\t)\p{Cc}/u.test(value)) return "it holds a control character";
  if (/[\u0100-\uffff]/.test(value)) return "it holds a character that is not Latin-1";
  return value.trim() === value ? undefined : "it begins or ends with a blank";
}
