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

const LOOKS_SECRET: readonly RegExp[] = [
  /(^|_)API_?KEY(S)?$/,
  /(^|_)(ACCESS|SECRET|PRIVATE|SIGNING|ENCRYPTION|MASTER|AUTH)_?KEY(_ID)?$/,
  /(^|_)(TOKEN|SECRET|SECRETS|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|CREDENTIALS|PAT)$/,
  /(^|_)(CONNECTION_STRING|DATABASE_URL|DSN)$/,
];

/** What of a launch's grant decides about the environment; `LaunchGrant` of the control API has it. */
export interface EnvironmentGrant {
  readonly setEnv: Readonly<Record<string, string>>;
  readonly keepEnv: readonly string[];
}

/** Why the variable is removed at launch, or undefined when it stays. */
function whyRemoved(name: string): string | undefined {
  const rule = REMOVED.find(({ names }) => names.test(name));
  if (rule !== undefined) return rule.why;
  return LOOKS_SECRET.some((pattern) => pattern.test(name.toUpperCase())) ? "it looks like a secret" : undefined;
}

/** `env` without what loads code or looks like a secret, except what the grant keeps, and with what the grant sets. */
export function launchedEnvironment(
  env: Readonly<Record<string, string | undefined>>,
  grant: EnvironmentGrant,
): Record<string, string> {
  const kept = new Set(grant.keepEnv);
  const launched: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    if (value !== undefined && (kept.has(name) || whyRemoved(name) === undefined)) launched[name] = value;
  }
  return { ...launched, ...grant.setEnv };
}
