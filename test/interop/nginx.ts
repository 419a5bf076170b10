import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { giveTo, makeProject, ordinaryUser } from "../e2e/agentid.js";

/** nginx as the service behind the relay, on a port and on a Unix socket; started by the ordinary user, known to no init system. */
export interface Nginx {
  readonly port: number;
  readonly socket: string;
  /** What `/open/page` has, and its entity tag. */
  readonly page: Buffer;
  readonly etag: string;
  /** Where `PUT /open/put/NAME` is stored. */
  stored(name: string): Buffer;
  /** Its access log: what arrived, and on which connection. */
  arrived(): readonly { connection: string; method: string; uri: string; status: number }[];
  close(): Promise<void>;
}

const MODIFIED = 1_700_000_000;

const configuration = (port: number) => `daemon off;
worker_processes 1;
pid nginx.pid;
events { worker_connections 512; }
http {
  log_format calls "$connection $request_method $request_uri $status";
  access_log access.log calls;
  client_body_temp_path temp/body;
  proxy_temp_path temp/proxy;
  fastcgi_temp_path temp/fastcgi;
  uwsgi_temp_path temp/uwsgi;
  scgi_temp_path temp/scgi;
  default_type text/plain;
  client_max_body_size 0;
  keepalive_requests 100000;
  server {
    listen 127.0.0.1:${port};
    listen unix:nginx.sock;
    root files;
    location / { return 404; }
    location = /open/page { }
    location = /closed/page { return 200 "closed"; }
    location = /open/zipped { alias files/open/page; gzip on; gzip_types text/plain; gzip_min_length 1; }
    location = /open/none { return 204; }
    location = /open/moved { return 302 https://elsewhere.example/open/page?x=1; }
    location = /open/self { return 307 /open/page; }
    location = /open/beside { absolute_redirect off; return 307 /open/page; }
    location = /open/login {
      add_header Set-Cookie "session=s1; Path=/; HttpOnly";
      add_header Set-Cookie "theme=dark; Path=/open";
      return 200 "welcome";
    }
    location = /open/who { return 200 "$cookie_session,$cookie_theme\\n"; }
    location /open/put/ { dav_methods PUT; }
  }
}
`;

export async function startNginx(program: string, port: number): Promise<Nginx> {
  const page = Buffer.from(Array.from({ length: 5_000 }, (_, index) => `line ${index}\n`).join(""));
  const directory = makeProject({ "nginx.conf": configuration(port), "files/open/page": page.toString() });
  for (const name of ["temp", "files/open/put"]) mkdirSync(join(directory, name), { recursive: true });
  utimesSync(join(directory, "files/open/page"), MODIFIED, MODIFIED);
  giveTo(directory);
  const log = join(directory, "access.log");
  // Paths of sockets are relative to the working directory, all others to the prefix.
  const args = ["-p", directory, "-c", "nginx.conf", "-e", "error.log"];
  const server = spawn(program, args, { ...ordinaryUser, cwd: directory, stdio: "ignore" });
  const ended = new Promise((resolve) => server.once("close", resolve));
  const deadline = Date.now() + 20_000;
  while (!(await answers(port))) {
    if (Date.now() > deadline || server.exitCode !== null) {
      throw new Error(`nginx does not listen: ${readFileSync(join(directory, "error.log"), "utf8")}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return {
    port,
    socket: join(directory, "nginx.sock"),
    page,
    etag: `"${MODIFIED.toString(16)}-${page.length.toString(16)}"`,
    stored: (name) => readFileSync(join(directory, "files/open/put", name)),
    arrived() {
      const lines = existsSync(log) ? readFileSync(log, "utf8").trim().split("\n") : [];
      return lines.map((line) => {
        const [connection = "", method = "", uri = "", status = ""] = line.split(" ");
        return { connection, method, uri, status: Number(status) };
      });
    },
    async close() {
      server.kill("SIGTERM");
      await ended;
    },
  };
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.end());
  });
}

/** A file of `length` bytes that repeat nowhere near, for the ordinary user to send. */
export function fileOf(length: number): string {
  const directory = makeProject({ empty: "" });
  const path = join(directory, "body");
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = length;
  for (let index = 0; index < words.length; index += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[index] = state;
  }
  writeFileSync(path, Buffer.from(words.buffer).subarray(0, length));
  giveTo(directory);
  return path;
}
