import { randomBytes } from "node:crypto";

/** A source of unpredictable bytes; a parameter for tests that need to know what comes out of it. */
export type RandomBytes = (size: number) => Buffer;

/** Drawn at once: a call for 16 or 32 octets takes as long as one for a few hundred, and a certificate needs two. */
const STOCK_BYTES = 4096;

let stock = Buffer.alloc(0);

/** `size` unpredictable octets, given to one caller only, who may wipe them. */
export const drawRandom: RandomBytes = (size) => {
  if (size > STOCK_BYTES) return randomBytes(size);
  if (stock.length < size) stock = randomBytes(STOCK_BYTES);
  const drawn = stock.subarray(0, size);
  stock = stock.subarray(size);
  return drawn;
};
