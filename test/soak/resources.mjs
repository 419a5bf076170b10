// Loaded into a daemon before its own code: says, on a socket of its own, what the process holds.
// Each connection gets one line of JSON, after a full collection of garbage.
import { createHook } from "node:async_hooks";
import { readdirSync } from "node:fs";
import { createServer } from "node:net";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

const timers = new Set();
createHook({
  init(id, type) {
    if (type === "Timeout") timers.add(id);
  },
  destroy(id) {
    timers.delete(id);
  },
}).enable();

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc");

createServer((socket) => {
  collect();
  const { rss, heapUsed } = process.memoryUsage();
  const descriptors = readdirSync("/proc/self/fd").length;
  socket.on("error", () => {});
  socket.end(JSON.stringify({ timers: timers.size, descriptors, rss, heapUsed }));
})
  .listen(process.env.SOAK_RESOURCES)
  .unref();
