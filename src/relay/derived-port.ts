import { derivedPort } from "../http/listen.js";

/** Two services of a project whose names hash alike: the later one in the file moves on. A port that anybody else holds is an error (D26). */
export function freeDerivedPort(projectDirectory: string, name: string, taken: readonly number[]): number {
  for (let attempt = 0; ; attempt += 1) {
    const port = derivedPort(projectDirectory, name, attempt);
    if (!taken.includes(port)) return port;
  }
}
