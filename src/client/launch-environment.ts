/**
 * The environment of a launched process. Its identity says "this pinned program", so variables that make a program run other code are removed, and so
 * are those that look like secrets: an agent that is handed a key does not need an identity. The identity's `keepEnv` names exceptions.
 */

interface RemovedVariables {
  readonly names: RegExp;
  readonly why: string;
}

const REMOVED: readonly RemovedVariables[] = [
  { names: /^LD_/, why: "the dynamic linker loads libraries from it (LD_PRELOAD, LD_LIBRARY_PATH, LD_AUDIT)" },
  { names: /^DYLD_/, why: "the same on macOS" },
  { names: /^GCONV_PATH$/, why: "iconv loads shared objects from it" },
  {
    names: /^(LOCPATH|NLSPATH|GETCONF_DIR|NIS_PATH|HOSTALIASES|RES_OPTIONS)$/,
    why: "glibc refuses it to setuid programs",
  },
  { names: /^(GLIBC_TUNABLES|MALLOC_)/, why: "changes the C library's checks" },
  { names: /^OPENSSL_(CONF|MODULES|ENGINES)$/, why: "OpenSSL loads providers and engines that it names" },
  { names: /^SSL_CERT_(FILE|DIR)$/, why: "decides whom the program trusts" },
  { names: /^(SSLKEYLOGFILE|NODE_EXTRA_CA_CERTS|NODE_TLS_REJECT_UNAUTHORIZED)$/, why: "leaks or switches off TLS" },
  {
    names: /^PYTHON/,
    why: "Python imports and executes from it (PYTHONPATH, PYTHONSTARTUP, PYTHONHOME, PYTHONBREAKPOINT …)",
  },
  { names: /^(NODE_OPTIONS|NODE_PATH|NODE_REPL_EXTERNAL_MODULE|NODE_V8_COVERAGE)$/, why: "Node loads modules from it" },
  { names: /^ELECTRON_RUN_AS_NODE$/, why: "turns an application into an interpreter" },
  { names: /^(DENO_|BUN_)(.*_)?(OPTIONS|PRELOAD|INSPECT.*)$/, why: "loads code or opens a debugger" },
  {
    names: /^(BASH_ENV|ENV|ZDOTDIR|BASH_FUNC_.*|SHELLOPTS|BASHOPTS|PS4|IFS|CDPATH)$/,
    why: "a shell executes or obeys it at start",
  },
  {
    names: /^(JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|JDK_JAVAC_OPTIONS|CLASSPATH)$/,
    why: "Java loads agents and classes from it",
  },
  {
    names: /^(DOTNET_STARTUP_HOOKS|DOTNET_ADDITIONAL_DEPS|DOTNET_SHARED_STORE)$/,
    why: ".NET loads assemblies from it",
  },
  { names: /^(CORECLR|COR)_(ENABLE_PROFILING|PROFILER.*)$/, why: ".NET loads a profiler from it" },
  { names: /^PERL(5OPT|5LIB|LIB|5DB)$/, why: "Perl loads modules from it" },
  { names: /^RUBY(OPT|LIB)$/, why: "Ruby loads files from it" },
  { names: /^(GEM_PATH|GEM_HOME|BUNDLE_GEMFILE)$/, why: "Ruby finds gems through it" },
  { names: /^(PHPRC|PHP_INI_SCAN_DIR)$/, why: "PHP's settings can prepend files" },
  { names: /^LUA_(INIT|PATH|CPATH)(_\d+_\d+)?$/, why: "Lua executes or loads from it" },
  {
    names: /^(R_PROFILE|R_PROFILE_USER|R_ENVIRON|R_ENVIRON_USER|R_LIBS|R_LIBS_USER)$/,
    why: "R executes or loads from it",
  },
  { names: /^JULIA_(LOAD_PATH|DEPOT_PATH|PROJECT)$/, why: "Julia loads packages from it" },
  { names: /^(ERL_FLAGS|ERL_AFLAGS|ERL_ZFLAGS|ERL_LIBS)$/, why: "Erlang executes or loads from it" },
  {
    names: /^(GIT_SSH|GIT_SSH_COMMAND|GIT_ASKPASS|GIT_EDITOR|GIT_PAGER|GIT_EXTERNAL_DIFF|GIT_EXEC_PATH|GIT_CONFIG.*)$/,
    why: "git executes it",
  },
  { names: /^(EDITOR|VISUAL|PAGER|MANPAGER|BROWSER|LESSOPEN|LESSCLOSE)$/, why: "programs execute it" },
];

/** Names, in upper case; numbers at their end tell several keys of one kind apart. */
const LOOKS_SECRET: readonly RegExp[] = [
  /(^|_)API_?KEYS?(_?\d+)?$/,
  /(^|_)(ACCESS|SECRET|PRIVATE|SIGNING|ENCRYPTION|MASTER|AUTH|ACCOUNT|LICENSE|SERVICE)_?KEY(_ID)?(_?\d+)?$/,
  // Vendors that call it just so: AZURE_OPENAI_KEY, STRIPE_KEY.
  /^(AZURE|OPENAI|ANTHROPIC|GEMINI|MISTRAL|COHERE|GROQ|STRIPE|SENDGRID|TWILIO|DATADOG|DD|HONEYCOMB)_(.*_)?KEY$/,
  // Not TOKENS: MAX_TOKENS is a number.
  /(^|_)\w*TOKEN(_?\d+)?$/,
  /(^|_)(SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|PASSCODE|CREDENTIALS?|CREDS|PAT|JWT|COOKIES?)(_?\d+)?$/,
  // PGPASSWORD, SSHPASS, MYSQL_PWD, REDISCLI_AUTH; not PWD and OLDPWD.
  /PASSWORD$|^SSHPASS$|^MYSQL_PWD$|(^|_)\w*AUTH(_CONFIG)?$|^NPM_CONFIG__?AUTH/,
  /(^|_)(CONNECTION_?STRING|DATABASE_URL|DSN)$/,
  // Sessions of password managers: OP_SESSION_my, BW_SESSION.
  /^(OP|BW|LPASS|DASHLANE)_SESSION(_|$)/,
  /(^|_)WEBHOOK(_URL)?$/,
];

/** Values that are credentials whatever their name: issuers mark theirs so that they are found where they should not be. */
const IS_SECRET: readonly RegExp[] = [
  /^(sk|rk)[-_](ant-|proj-|live_|test_|or-)?[A-Za-z0-9_-]{16,}$/,
  /^(gh[opsur]_|github_pat_|glpat-|glsa_|hf_|npm_|pypi-|dop_v1_|xox[abeoprs]-|xapp-|shp(at|ca|pa|ss)_|ops_|gsk_|pplx-|xai-)[A-Za-z0-9_-]{10,}/,
  /^(AKIA|ASIA)[0-9A-Z]{16}$/,
  /^AIza[0-9A-Za-z_-]{35}$/,
  /^eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*$/,
  /-----BEGIN [A-Z ]*PRIVATE KEY-----/,
  // A password in an address.
  /^[a-z][a-z0-9+.-]*:\/\/[^\s/?#@:]*:[^\s/?#@]+@/i,
];

/** What of a launch's grant decides about the environment; `LaunchGrant` of the control API has it. */
export interface EnvironmentGrant {
  readonly setEnv: Readonly<Record<string, string>>;
  readonly keepEnv: readonly string[];
  /** Names under which secrets of `egress` are known. */
  readonly dropEnv?: readonly string[] | undefined;
}

/** Why the variable is removed at launch, or undefined when it stays. */
function whyRemoved(name: string, value: string, dropped: ReadonlySet<string>): string | undefined {
  const rule = REMOVED.find(({ names }) => names.test(name));
  if (rule !== undefined) return rule.why;
  if (dropped.has(name.toUpperCase())) return "it names a secret of egress";
  if (LOOKS_SECRET.some((pattern) => pattern.test(name.toUpperCase()))) return "it looks like a secret";
  return IS_SECRET.some((pattern) => pattern.test(value)) ? "its value looks like a secret" : undefined;
}

/** Names of the variables in `env` that hold a secret, as far as can be seen. */
export function secretVariables(env: Readonly<Record<string, string | undefined>>): readonly string[] {
  const none: ReadonlySet<string> = new Set();
  return Object.entries(env).flatMap(([name, value]) =>
    value !== undefined && value !== "" && whyRemoved(name, value, none)?.endsWith("looks like a secret") === true
      ? [name]
      : [],
  );
}

/** HTTPS_PROXY, all_proxy, NO_PROXY, npm_config_https_proxy. */
function isProxy(name: string): boolean {
  return (
    /(^|_)(HTTP|HTTPS|FTP|SOCKS|SOCKS5|WS|WSS|ALL|NO)_?PROXY$/i.test(name) || /^npm_config_(no)?proxy$/i.test(name)
  );
}

/** `env` without what loads code or looks like a secret, except what the grant keeps, and with what the grant sets. */
export function launchedEnvironment(
  env: Readonly<Record<string, string | undefined>>,
  grant: EnvironmentGrant,
): Record<string, string> {
  const kept = new Set(grant.keepEnv);
  const dropped = new Set((grant.dropEnv ?? []).map((name) => name.toUpperCase()));
  // Where we set a proxy, another one would be a way around it.
  const proxied = Object.keys(grant.setEnv).some(isProxy);
  const launched: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    if (value === undefined) continue;
    const stays = !(proxied && isProxy(name)) && whyRemoved(name, value, dropped) === undefined;
    if (kept.has(name) || stays) launched[name] = value;
  }
  return { ...launched, ...grant.setEnv };
}
