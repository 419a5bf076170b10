import { join } from "node:path";

/**
 * Where people and their tools keep credentials, below a home. The home of a sandbox is empty, so these matter where somebody lets an agent read (part of)
 * the real one: they stay hidden all the same.
 */
const OF_A_HOME = [
  ".agentid",
  ".ssh",
  ".gnupg",
  ".password-store",
  ".pki",
  ".netrc",
  ".git-credentials",
  ".config/git/credentials",
  ".aws",
  ".azure",
  ".oci",
  ".kube",
  ".docker",
  ".config/containers",
  ".config/gcloud",
  ".config/gh",
  ".config/glab-cli",
  ".config/hub",
  ".config/doctl",
  ".config/op",
  ".config/heroku",
  ".config/rclone",
  ".vault-token",
  ".terraform.d",
  ".terraformrc",
  ".npmrc",
  ".yarnrc.yml",
  ".pypirc",
  ".gem/credentials",
  ".cargo/credentials",
  ".cargo/credentials.toml",
  ".m2/settings.xml",
  ".gradle/gradle.properties",
  ".pgpass",
  ".my.cnf",
  ".local/share/keyrings",
  ".local/share/kwalletd",
  ".local/share/gnome-keyring",
  ".mozilla",
  ".config/google-chrome",
  ".config/chromium",
  ".config/BraveSoftware",
  ".config/Code",
  ".claude.json",
  ".claude/.credentials.json",
  ".codex/auth.json",
  ".bash_history",
  ".zsh_history",
  ".python_history",
  ".node_repl_history",
  ".Xauthority",
  ".ICEauthority",
  "Library/Keychains",
  "Library/Cookies",
  "Library/Application Support",
] as const;

/** Sockets of the machine and of the session: with one of them a process is root, another session, or another key's owner. */
const OF_THE_MACHINE = [
  "/run",
  "/var/run",
  "/tmp/.X11-unix",
  "/tmp/.ICE-unix",
  "/var/lib/docker",
  "/proc",
  "/sys",
  "/dev",
  "/etc/shadow",
  "/etc/gshadow",
  "/etc/sudoers",
  "/etc/ssh",
  "/etc/ssl/private",
] as const;

/** Files with settings and keys in a project's folder; shown only where the entry names them. */
export const isEnvironmentFile = (name: string): boolean => /^\.env(\..+)?$|^\.envrc$/.test(name);

export function privatePathsOf(homes: readonly string[]): readonly string[] {
  return [...OF_THE_MACHINE, ...homes.flatMap((home) => OF_A_HOME.map((name) => join(home, name)))];
}

/**
 * Variables that lead to what does not exist inside (sockets, sessions, credentials in files), or that hold a secret by the word of their owners.
 * What looks like a secret by its name is removed at every launch already.
 */
const LEADS_OUT: readonly RegExp[] = [
  /^AGENTID_(?!URL_)/,
  /^(SSH|GPG|DBUS|WAYLAND|TMUX|DOCKER|CONTAINER|PODMAN|BUILDKIT|PULSE|PIPEWIRE|VSCODE|KITTY|WEZTERM|ALACRITTY|ZELLIJ|I3SOCK|SWAYSOCK)(_|$)/,
  /^(DISPLAY|XAUTHORITY|ICEAUTHORITY|SESSION_MANAGER|STY|XDG_RUNTIME_DIR|XDG_SESSION_.*|DESKTOP_STARTUP_ID|NIX_REMOTE|NOTIFY_SOCKET|LISTEN_.*|INVOCATION_ID)$/,
  /^(AWS|AZURE|ARM|GOOGLE|GCLOUD|CLOUDSDK|KUBE|VAULT|OCI|DIGITALOCEAN|CLOUDFLARE|CONSUL|NOMAD|TF)_/,
  /^(KUBECONFIG|KRB5.*|NETRC|PGPASSFILE|NPM_CONFIG_.*|npm_config_.*)$/,
  /^((HTTPS?|ALL|FTP|NO)_PROXY|(https?|all|ftp|no)_proxy)$/,
  /_SOCK(ET)?$/,
];

export function leadsOut(variable: string): boolean {
  return LEADS_OUT.some((pattern) => pattern.test(variable));
}
