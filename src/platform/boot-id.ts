import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

let known: string | undefined;

/** A text that differs from boot to boot. Process numbers and start times mean something only within one. */
export function bootId(): string {
  known ??=
    process.platform === "darwin"
      ? execFileSync("/usr/sbin/sysctl", ["-n", "kern.bootsessionuuid"], { encoding: "utf8" }).trim()
      : readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  return known;
}
