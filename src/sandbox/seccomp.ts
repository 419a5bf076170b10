/**
 * A seccomp filter as the kernel takes it: classic BPF over `struct seccomp_data`. It closes what namespaces and mounts leave open: new namespaces, typing
 * into the terminal (TIOCSTI), one process taking over another (ptrace and its kin), socket families that know no network namespace (VSOCK), io_uring,
 * which would go around this very filter, and the parts of the kernel that flatpak closes too.
 */

export type Architecture = "x64" | "arm64";

const ERRNO = { EPERM: 1, ENOSYS: 38, EAFNOSUPPORT: 97 } as const;

const AUDIT_ARCH: Record<Architecture, number> = { x64: 0xc000_003e, arm64: 0xc000_00b7 };
/** x32: other numbers under the same architecture. */
const X32_BIT = 0x4000_0000;

/** Numbers of the system calls that are refused whatever their arguments; null where the architecture has none. */
const REFUSED: Readonly<Record<string, Readonly<Record<Architecture, number | null>>>> = {
  // Namespaces and mounts
  unshare: { x64: 272, arm64: 97 },
  setns: { x64: 308, arm64: 268 },
  mount: { x64: 165, arm64: 40 },
  umount2: { x64: 166, arm64: 39 },
  pivot_root: { x64: 155, arm64: 41 },
  chroot: { x64: 161, arm64: 51 },
  open_tree: { x64: 428, arm64: 428 },
  move_mount: { x64: 429, arm64: 429 },
  fsopen: { x64: 430, arm64: 430 },
  fsconfig: { x64: 431, arm64: 431 },
  fsmount: { x64: 432, arm64: 432 },
  fspick: { x64: 433, arm64: 433 },
  mount_setattr: { x64: 442, arm64: 442 },
  open_tree_attr: { x64: 467, arm64: 467 },
  // One process in another: a child of the agent would have the agent's identity
  ptrace: { x64: 101, arm64: 117 },
  process_vm_readv: { x64: 310, arm64: 270 },
  process_vm_writev: { x64: 311, arm64: 271 },
  pidfd_getfd: { x64: 438, arm64: 438 },
  kcmp: { x64: 312, arm64: 272 },
  // Ways around a filter, and the parts of the kernel that most escapes go through
  io_uring_setup: { x64: 425, arm64: 425 },
  io_uring_enter: { x64: 426, arm64: 426 },
  io_uring_register: { x64: 427, arm64: 427 },
  bpf: { x64: 321, arm64: 280 },
  perf_event_open: { x64: 298, arm64: 241 },
  userfaultfd: { x64: 323, arm64: 282 },
  add_key: { x64: 248, arm64: 217 },
  request_key: { x64: 249, arm64: 218 },
  keyctl: { x64: 250, arm64: 219 },
  open_by_handle_at: { x64: 304, arm64: 265 },
  name_to_handle_at: { x64: 303, arm64: 264 },
  mbind: { x64: 237, arm64: 235 },
  set_mempolicy: { x64: 238, arm64: 237 },
  get_mempolicy: { x64: 239, arm64: 236 },
  migrate_pages: { x64: 256, arm64: 238 },
  move_pages: { x64: 279, arm64: 239 },
  // Of the machine
  syslog: { x64: 103, arm64: 116 },
  acct: { x64: 163, arm64: 89 },
  uselib: { x64: 134, arm64: null },
  quotactl: { x64: 179, arm64: 60 },
  quotactl_fd: { x64: 443, arm64: 443 },
  kexec_load: { x64: 246, arm64: 104 },
  kexec_file_load: { x64: 320, arm64: 294 },
  init_module: { x64: 175, arm64: 105 },
  finit_module: { x64: 313, arm64: 273 },
  delete_module: { x64: 176, arm64: 106 },
  swapon: { x64: 167, arm64: 224 },
  swapoff: { x64: 168, arm64: 225 },
  reboot: { x64: 169, arm64: 142 },
  iopl: { x64: 172, arm64: null },
  ioperm: { x64: 173, arm64: null },
  modify_ldt: { x64: 154, arm64: null },
  settimeofday: { x64: 164, arm64: 170 },
  clock_settime: { x64: 227, arm64: 112 },
  vhangup: { x64: 153, arm64: 58 },
};

const CLONE: Record<Architecture, number> = { x64: 56, arm64: 220 };
/** Its flags are behind a pointer, out of a filter's sight; the C library falls back to clone. */
const CLONE3 = 435;
const IOCTL: Record<Architecture, number> = { x64: 16, arm64: 29 };
const SOCKET: Record<Architecture, number> = { x64: 41, arm64: 198 };

/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. */
const CLONE_NEW = 0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;
/** TIOCSTI types into the terminal, TIOCLINUX pastes into a console. */
const TERMINAL_INJECTION = [0x5412, 0x541c];
/** UNIX, INET, INET6, NETLINK: what a program needs, each bound to the network namespace or to a path. */
const SOCKET_FAMILIES = [1, 2, 10, 16];

/** Offsets in `struct seccomp_data`; of the 64-bit arguments the low half, little-endian. */
const NUMBER = 0;
const ARCHITECTURE = 4;
const argument = (index: number): number => 16 + 8 * index;

const LOAD = 0x20; // BPF_LD | BPF_W | BPF_ABS
const EQUAL = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const AT_LEAST = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const ANY_BIT = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN = 0x06; // BPF_RET | BPF_K
const ALLOW = 0x7fff_0000;
const refuse = (errno: number): Instruction => [RETURN, 0, 0, 0x0005_0000 | errno];

/** Code, how many instructions to skip when true and when false, and the constant. */
type Instruction = readonly [code: number, whenTrue: number, whenFalse: number, constant: number];

/** Whether there is a filter for `architecture` (`process.arch`). */
export function isFiltered(architecture: string): architecture is Architecture {
  return architecture === "x64" || architecture === "arm64";
}

export function seccompFilter(architecture: Architecture): Buffer {
  const load = (offset: number): Instruction => [LOAD, 0, 0, offset];
  const onlyFor = (number: number, steps: readonly Instruction[]): readonly Instruction[] => [
    [EQUAL, 0, steps.length, number],
    ...steps,
  ];
  const allow: Instruction = [RETURN, 0, 0, ALLOW];
  const program: readonly Instruction[] = [
    load(ARCHITECTURE),
    // A 32-bit program would reach the kernel through other numbers.
    [EQUAL, 1, 0, AUDIT_ARCH[architecture]],
    refuse(ERRNO.ENOSYS),
    load(NUMBER),
    ...(architecture === "x64" ? ([[AT_LEAST, 0, 1, X32_BIT], refuse(ERRNO.ENOSYS)] as const) : []),
    ...onlyFor(CLONE3, [refuse(ERRNO.ENOSYS)]),
    ...Object.values(REFUSED).flatMap(({ [architecture]: number }) =>
      number === null ? [] : onlyFor(number, [refuse(ERRNO.EPERM)]),
    ),
    ...onlyFor(CLONE[architecture], [load(argument(0)), [ANY_BIT, 0, 1, CLONE_NEW], refuse(ERRNO.EPERM), allow]),
    ...onlyFor(IOCTL[architecture], [
      load(argument(1)),
      ...TERMINAL_INJECTION.flatMap((request): readonly Instruction[] => [[EQUAL, 0, 1, request], refuse(ERRNO.EPERM)]),
      allow,
    ]),
    ...onlyFor(SOCKET[architecture], [
      load(argument(0)),
      ...SOCKET_FAMILIES.flatMap((family): readonly Instruction[] => [[EQUAL, 0, 1, family], allow]),
      refuse(ERRNO.EAFNOSUPPORT),
    ]),
    allow,
  ];
  return Buffer.concat(program.map(encoded));
}

/** `struct sock_filter`: u16 code, u8 jt, u8 jf, u32 k. */
function encoded([code, whenTrue, whenFalse, constant]: Instruction): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt16LE(code, 0);
  bytes.writeUInt8(whenTrue, 2);
  bytes.writeUInt8(whenFalse, 3);
  bytes.writeUInt32LE(constant, 4);
  return bytes;
}
