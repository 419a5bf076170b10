import { describe, expect, it } from "vitest";
import { launchedEnvironment } from "../../src/client/launch-environment.js";

/** What an agent inherits of the shell that launches it: nothing that is a credential, by name or by value. */

const grant = { setEnv: {}, keepEnv: [] };
const kept = (name: string, value: string, more = {}) =>
  Object.hasOwn(launchedEnvironment({ [name]: value }, { ...grant, ...more }), name);

describe("variables that are named like API keys, and their neighbours that are not", () => {
  it.each([
    ...["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "openai_api_key", "API_KEY", "APIKEY", "COHERE_APIKEY", "API_KEYS"],
    ...["OPENAI_API_KEY_2", "OPENAI_API_KEY2", "AZURE_OPENAI_KEY", "OPENAI_KEY", "STRIPE_KEY", "DD_APP_KEY"],
    ...["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY", "SIGNING_KEY"],
    ...["SECRET_KEY", "MASTER_KEY", "NEW_RELIC_LICENSE_KEY", "SUPABASE_SERVICE_KEY", "ENCRYPTION_KEY"],
    ...[
      "GITHUB_TOKEN",
      "GH_TOKEN",
      "HF_TOKEN",
      "TOKEN",
      "ANTHROPIC_AUTH_TOKEN",
      "authToken",
      "NPM_TOKEN",
      "VAULT_TOKEN",
    ],
    ...["PASSWORD", "DB_PASSWORD", "PGPASSWORD", "SSHPASS", "MYSQL_PWD", "REDISCLI_AUTH", "PASSPHRASE"],
    ...["CLIENT_SECRET", "SECRETS", "GOOGLE_APPLICATION_CREDENTIALS", "GITHUB_PAT", "JWT", "SESSION_COOKIE"],
    ...["DOCKER_AUTH_CONFIG", "npm_config__auth", "DATABASE_URL", "SENTRY_DSN", "AZURE_CONNECTION_STRING"],
    ...["OP_SESSION_my", "BW_SESSION", "SLACK_WEBHOOK_URL", "SLACK_WEBHOOK"],
  ])("%s is not inherited", (name) => expect(kept(name, "x")).toBe(false));

  it.each([
    ...["PATH", "HOME", "PWD", "OLDPWD", "USER", "LANG", "TERM", "SHELL", "TMPDIR", "COLORTERM", "XAUTHORITY"],
    ...[
      "SSH_AUTH_SOCK",
      "MAX_TOKENS",
      "OPENAI_MAX_TOKENS",
      "TOKENIZERS_PARALLELISM",
      "OPENAI_BASE_URL",
      "OPENAI_MODEL",
    ],
    ...["KEYBOARD", "KEYMAP", "MONKEY", "AUTHOR", "GIT_AUTHOR_NAME", "COMPATIBLE", "PATTERN", "HOTKEY", "DSNAME"],
    ...["AWS_REGION", "AWS_PROFILE", "XDG_SESSION_ID", "SESSION_MANAGER", "HOOK", "SECRETARY"],
  ])("%s is", (name) => expect(kept(name, "x")).toBe(true));
});

describe("values that are credentials, under any name, and their neighbours that are not", () => {
  it.each([
    ...[
      "sk-0123456789abcdef0123",
      "sk-ant-api03-0123456789abcdef",
      "sk-proj-0123456789abcdef",
      "sk_live_0123456789abcdef",
    ],
    ...["ghp_0123456789abcdef", "github_pat_0123456789", "glpat-0123456789ab", "hf_0123456789ab", "npm_0123456789ab"],
    ...["xoxb-0123456789-ab", "AKIA0123456789ABCDEF", `AIza${"x".repeat(35)}`, "gsk_0123456789ab", "xai-0123456789ab"],
    ...["eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.", "-----BEGIN PRIVATE KEY-----\nMII", "-----BEGIN EC PRIVATE KEY-----"],
    ...["postgres://dev:secret@localhost/shop", "redis://:secret@127.0.0.1", "http://u:p@proxy:3128"],
  ])("%s", (value) => expect(kept("INNOCENT", value)).toBe(false));

  it.each([
    ...["sk-short", "sketch-of-a-long-word-here", "task-0123456789abcdef", "ghp", "AKIA", "eyJ", "xo", "hf_x"],
    ...["http://127.0.0.1:8080", "postgres://localhost/shop", "https://user@host/", "unix:///run/x.sock", "a:b@c"],
    ...["-----BEGIN CERTIFICATE-----", "/usr/bin:/bin", "http://[::1]:8080/a:b@c"],
  ])("not %s", (value) => expect(kept("INNOCENT", value)).toBe(true));
});

describe("what a launch's grant says", () => {
  it("goes by the names of egress secrets, in any case, but for what the entry keeps", () => {
    const dropEnv = ["OPENAI", "WRITERS_OWN"];
    expect(kept("WRITERS_OWN", "x", { dropEnv })).toBe(false);
    expect(kept("openai", "x", { dropEnv })).toBe(false);
    expect(kept("WRITERS_OWN", "x")).toBe(true);
    expect(kept("WRITERS", "x", { dropEnv })).toBe(true);
    expect(kept("WRITERS_OWN", "x", { dropEnv, keepEnv: ["WRITERS_OWN"] })).toBe(true);
    expect(kept("OPENAI_API_KEY", "placeholder", { keepEnv: ["OPENAI_API_KEY"] })).toBe(true);
    expect(kept("INNOCENT", "ghp_0123456789abcdef", { keepEnv: ["INNOCENT"] })).toBe(true);
  });

  it("sets what the trust domain is found by", () => {
    const env = launchedEnvironment({ AGENTID_CONTROL: "old" }, { ...grant, setEnv: { AGENTID_CONTROL: "new" } });
    expect(env).toEqual({ AGENTID_CONTROL: "new" });
  });
});

describe("the owner's own proxies", () => {
  const own = ["HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "FTP_PROXY", "socks_proxy", "npm_config_proxy"];
  const names = [...own, "npm_config_https_proxy", "NPM_CONFIG_NOPROXY", "no_proxy", "WSS_PROXY", "YARN_HTTPS_PROXY"];
  const ours = { setEnv: { HTTPS_PROXY: "http://127.0.0.1:20001" } };

  it.each(names)("%s is a way around ours, and stays where there is none", (name) => {
    expect(kept(name, "http://proxy.test", ours)).toBe(false);
    expect(kept(name, "http://proxy.test", { ...ours, keepEnv: [name] })).toBe(true);
    expect(kept(name, "http://proxy.test")).toBe(true);
  });

  it.each(["PROXY_HOME", "PROXYCHAINS_CONF", "MY_PROXY_LIST", "PATH"])("%s is none", (name) => {
    expect(kept(name, "x", ours)).toBe(true);
  });
});
