/**
 * `node:http` for everything here that is loaded at a start. An import statement would read each of its exports, and those of `fetch`'s kind load all of
 * undici at that moment: 50 ms of a start, for nothing that is used.
 */
export const { createServer, METHODS, request, STATUS_CODES } = process.getBuiltinModule("node:http");
