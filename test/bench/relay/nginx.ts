import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { PROXY_CORE } from "./load.js";

/** nginx with the same mutual TLS, one worker, keep-alive behind, no log, no policy. Undefined where it is not installed. */
export async function startNginx(
  directory: string,
  files: { cert: string; key: string; ca: string },
  upstream: number,
): Promise<{ child: ChildProcess; port: number } | undefined> {
  const port = await freePort();
  mkdirSync(join(directory, "nginx"));
  const config = join(directory, "nginx.conf");
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((kind) => `${kind}_temp_path ${directory}/nginx/${kind};`)
    .join(" ");
  writeFileSync(
    config,
    `user root; worker_processes 1; daemon off; pid ${directory}/nginx/pid; error_log ${directory}/nginx/error.log;
    events { worker_connections 4096; }
    http {
      access_log off; ${temporary} keepalive_requests 1000000000; keepalive_timeout 65;
      upstream service { server 127.0.0.1:${upstream}; keepalive 64; keepalive_requests 1000000000; }
      server {
        listen 127.0.0.1:${port} ssl;
        ssl_certificate ${files.cert}; ssl_certificate_key ${files.key}; ssl_protocols TLSv1.3;
        ssl_verify_client on; ssl_client_certificate ${files.ca}; ssl_session_tickets off; ssl_session_cache off;
        location / {
          proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection "";
          proxy_set_header X-Forwarded-Client-Cert "Subject=$ssl_client_s_dn";
        }
      }
    }
`,
  );
  const child = spawn("taskset", ["-c", String(PROXY_CORE), "nginx", "-c", config], { stdio: "inherit" });
  const ended = new Promise<"ended">((resolve) => child.once("exit", () => resolve("ended")));
  return (await Promise.race([accepts(port), ended])) === "ended" ? undefined : { child, port };
}

async function accepts(port: number): Promise<"accepts"> {
  for (;;) {
    const connected = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1");
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
      socket.once("connect", () => socket.destroy());
    });
    if (connected) return "accepts";
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}
