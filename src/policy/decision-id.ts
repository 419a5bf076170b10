const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";
const BYTES_PER_ID = 10;
const IDS_PER_BATCH = 256;

const PAIRS = Array.from({ length: 1024 }, (_, bits) => `${ALPHABET[bits >> 5]}${ALPHABET[bits & 31]}`);

/**
 * Makes decision ids: 80 random bits as 16 characters of lower-case base32 (Crockford's alphabet, which leaves out i, l, o and u, so that an id
 * can be read aloud and typed). `randomBytes` is asked for many ids at a time, since a call costs more than an id.
 */
export function decisionIds(randomBytes: (size: number) => Uint8Array): () => string {
  let batch = new Uint8Array(0);
  let at = 0;
  return () => {
    if (at >= batch.length) {
      batch = new Uint8Array(randomBytes(BYTES_PER_ID * IDS_PER_BATCH));
      at = 0;
    }
    let id = "";
    for (let half = 0; half < 2; half += 1, at += 5) {
      const [a = 0, b = 0, c = 0, d = 0, e = 0] = batch.subarray(at, at + 5);
      id += PAIRS[(a << 2) | (b >> 6)];
      id += PAIRS[((b & 63) << 4) | (c >> 4)];
      id += PAIRS[((c & 15) << 6) | (d >> 2)];
      id += PAIRS[((d & 3) << 8) | e];
    }
    return id;
  };
}
