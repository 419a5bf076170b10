/** A block of textual encoding. RFC 7468. */
export interface PemBlock {
  /** What stands after BEGIN: `CERTIFICATE`, `PRIVATE KEY`. */
  readonly label: string;
  readonly der: Buffer;
}

/** `der` between BEGIN and END `label`, 64 characters a line, with a line end at the end. RFC 7468 §2. */
export function encodePem(label: string, der: Uint8Array): string {
  const lines = Buffer.from(der)
    .toString("base64")
    .replaceAll(/.{64}(?=.)/g, "$&\n");
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`;
}

/** Every block in `text`, in order; text between blocks is explanation (RFC 7468 §5.2) and is left out. */
export function decodePem(text: string): readonly PemBlock[] {
  const blocks = text.matchAll(/-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\s]*)-----END \1-----/g);
  return [...blocks].map(([, label = "", base64 = ""]) => ({ label, der: Buffer.from(base64, "base64") }));
}
