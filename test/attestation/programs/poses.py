"""Takes the command line and the exec generation of another program without executing it: prctl(PR_SET_MM_MAP), which needs no privilege.

`poses.py PROGRAM`: says `up`; `pose` makes it look like `python3 PROGRAM`; `again` becomes this program anew, `become` really becomes PROGRAM.
"""

import ctypes
import os
import struct
import sys

PR_SET_MM, PR_SET_MM_MAP = 35, 14
libc = ctypes.CDLL(None, use_errno=True)
libc.sbrk.restype = ctypes.c_void_p
libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
program = sys.argv[1]
kept = []


def pose():
    words = b"python3\0" + program.encode() + b"\0"
    text = ctypes.create_string_buffer(words, len(words))
    kept.append(text)
    at = ctypes.addressof(text)
    fields = open("/proc/self/stat").read().rsplit(")", 1)[1].split()
    stat = lambda number: int(fields[number - 3])
    # start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end, auxv, auxv_size, exe_fd
    image = struct.pack(
        "<12QII",
        *(stat(26), stat(27), stat(45), stat(46), stat(47), libc.sbrk(0), stat(28) - 16),
        *(at, at + len(words), stat(50), stat(51), 0, 0, 0xFFFFFFFF),
    )
    if libc.prctl(PR_SET_MM, PR_SET_MM_MAP, image, len(image), 0) != 0:
        return os.strerror(ctypes.get_errno())
    return open("/proc/self/cmdline").read().replace("\0", " ").strip()


print("up", flush=True)
for line in sys.stdin:
    if line == "pose\n":
        print(pose(), flush=True)
    if line == "again\n":
        os.execv(sys.executable, ["python3", __file__, program])
    if line == "become\n":
        os.execv(sys.executable, ["python3", program])
