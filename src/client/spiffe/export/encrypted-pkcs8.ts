import forge from "node-forge";

/** Twice keytool's own, ten times openssl's: forge counts in JavaScript, and a key store is encrypted twice. */
const ITERATIONS = 20_000;

/** `privateKeyPkcs8` (unencrypted PKCS#8 DER) encrypted under `passphrase`, as DER: PBES2 with PBKDF2-HMAC-SHA-256 and AES-256-CBC. RFC 5958 §3, RFC 8018. */
export function encodeEncryptedPkcs8(privateKeyPkcs8: Buffer, passphrase: string): Buffer {
  return Buffer.from(forge.asn1.toDer(encryptedPrivateKeyInfo(privateKeyPkcs8, passphrase)).getBytes(), "binary");
}

/** EncryptedPrivateKeyInfo around any DER. */
export function encryptedPrivateKeyInfo(der: Buffer, passphrase: string): forge.asn1.Asn1 {
  const contents = forge.asn1.fromDer(der.toString("binary"));
  return forge.pki.encryptPrivateKeyInfo(contents, utf8(passphrase), {
    algorithm: "aes256",
    count: ITERATIONS,
    saltSize: 16,
    prfAlgorithm: "sha256",
  });
}

/** forge takes bytes as characters; RFC 8018 §3 leaves the encoding open, and all who read it take UTF-8. */
function utf8(passphrase: string): string {
  return Buffer.from(passphrase, "utf8").toString("binary");
}
