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
      const low = byte(batch, at + 4);
      const high =
        byte(batch, at) * 2 ** 24 + ((byte(batch, at + 1) << 16) | (byte(batch, at + 2) << 8) | byte(batch, at + 3));
      id += PAIRS[Math.floor(high / 2 ** 22)];
      id += PAIRS[(high >>> 12) & 1023];
      id += PAIRS[(high >>> 2) & 1023];
      id += PAIRS[((high & 3) << 8) | low];
    }
    return id;
  };
}

function byte(bytes: Uint8Array, at: number): number {
  return bytes[at] ?? 0;
}
