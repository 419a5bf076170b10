import koffi from "koffi";

/**
 * Processor time of this thread in milliseconds. From the kernel's clock where it can be asked: `process.threadCpuUsage` tells of a running thread only what
 * was counted at the last tick, which is up to 4 ms ago.
 */
export const ownMilliseconds: () => number = threadClock();

function threadClock(): () => number {
  if (process.platform !== "linux") {
    return () => {
      const { user, system } = process.threadCpuUsage();
      return (user + system) / 1000;
    };
  }
  const CLOCK_THREAD_CPUTIME_ID = 3;
  const clockGettime = koffi.load(null).func("int clock_gettime(int, void *)");
  const time = Buffer.alloc(16);
  return () => {
    clockGettime(CLOCK_THREAD_CPUTIME_ID, time);
    return Number(time.readBigInt64LE(0)) * 1e3 + Number(time.readBigInt64LE(8)) / 1e6;
  };
}
