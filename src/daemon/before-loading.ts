/** What a starting daemon can have done on another thread while its own modules are being loaded; loads hardly any itself. */
export { beginDigestOfOwnExecutable } from "../attestation/early-digest.js";
