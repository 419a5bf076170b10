import { CodedError } from "../coded-error.js";
import { findProject } from "../config/load.js";

/** The folder named by `--project`, else the nearest parent with agentid.yaml. Throws CodedError `no-project`. */
export function projectDirectory(named: string | undefined): string {
  const found = named ?? findProject(process.cwd());
  if (found === undefined) {
    throw new CodedError("no-project", "there is no agentid.yaml in this folder or above it", {
      hint: "agentid init writes one",
    });
  }
  return found;
}
