import { CodedError } from "../coded-error.js";
import { darwin } from "./darwin.js";
import { linux } from "./linux.js";
import type { Platform } from "./platform.js";

/** This system's Platform. Throws CodedError `platform-unsupported`. */
export function currentPlatform(): Platform {
  if (process.platform === "linux") return linux;
  if (process.platform === "darwin") return darwin();
  throw new CodedError("platform-unsupported", `agentid does not run on ${process.platform}`, {
    hint: process.platform === "win32" ? "Run it inside WSL: wsl --install" : "It runs on Linux and macOS.",
  });
}
