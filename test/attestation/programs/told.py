"""A process that does what lines on its standard input say, and answers each by a line."""
import array, ctypes, os, socket, struct, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)
sockets = {}


def stay():
    """What a child does: nothing, until its parent ends."""
    libc.prctl(1, 9, 0, 0, 0)
    os.close(0)
    os.close(2)
    time.sleep(600)
    os._exit(0)


def receive_descriptor(connection):
    _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(4))
    return array.array("i", ancillary[0][2])[0]


def forge_executable(path):
    """Lets the kernel name another file as this process's executable: its own is replaced by a copy in memory first, for it must not be mapped any more."""
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.restype = libc.mremap.restype = libc.sbrk.restype = pointer
    libc.mmap.argtypes = [pointer, size, number, number, number, ctypes.c_long]
    libc.mremap.argtypes = [pointer, size, size, number, pointer]
    libc.mprotect.argtypes = [pointer, size, number]
    libc.memmove.argtypes = [pointer, pointer, size]
    libc.prctl.argtypes = [number, ctypes.c_ulong, pointer, ctypes.c_ulong, ctypes.c_ulong]
    own = os.readlink("/proc/self/exe")
    file = os.open(path, os.O_RDONLY)
    for line in open("/proc/self/maps").read().splitlines():
        words = line.split(None, 5)
        if len(words) < 6 or words[5] != own:
            continue
        start, end = (int(word, 16) for word in words[0].split("-"))
        protection = sum(bit for letter, bit in (("r", 1), ("w", 2), ("x", 4)) if letter in words[1])
        copy = libc.mmap(None, end - start, 3, 0x22, -1, 0)
        libc.memmove(copy, start, end - start)
        libc.mprotect(copy, end - start, protection)
        libc.mremap(copy, end - start, end - start, 3, start)
    stat = open("/proc/self/stat").read().rsplit(")", 1)[1].split()
    fields = [int(stat[n - 3]) for n in (26, 27, 45, 46, 47)] + [libc.sbrk(0)]
    fields += [int(stat[n - 3]) for n in (28, 48, 49, 50, 51)] + [0, 0, file]
    layout = ctypes.create_string_buffer(struct.pack("<12QII", *fields))
    done = libc.prctl(35, 14, ctypes.addressof(layout), struct.calcsize("<12QII"), 0)
    return os.readlink("/proc/self/exe") if done == 0 else os.strerror(ctypes.get_errno())


def keep_apart(ready):
    if libc.unshare(0x400) != 0:
        os._exit(1)
    ready.set()
    time.sleep(600)


def tcp(family, address, port, source_port="0"):
    made = socket.socket(socket.AF_INET6 if family == "6" else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if source_port != "0":
        made.bind((address, int(source_port)))
    made.set_inheritable(True)
    return made


def obey(word, *rest):
    if word == "connect":
        sockets["it"] = socket.socket(socket.AF_UNIX)
        sockets["it"].connect(rest[0])
    elif word == "tcp":
        sockets["it"] = tcp(*rest)
        sockets["it"].connect((rest[1], int(rest[2])))
    elif word == "make":
        sockets["it"] = tcp("4", "127.0.0.1", "0")
    elif word == "join":
        sockets["it"].connect(("127.0.0.1", int(rest[0])))
    elif word == "listen":
        # Kept: a listener that goes takes the connections with it that nobody has accepted.
        sockets["listener"] = server = socket.socket(socket.AF_INET)
        server.bind(("127.0.0.1", int(rest[0])))
        server.listen()
        sockets["it"] = tcp("4", "127.0.0.1", rest[0], rest[1])
        sockets["it"].connect(("127.0.0.1", int(rest[0])))
    elif word == "send":
        sockets["it"].sendall(rest[0].encode())
    elif word == "close":
        sockets["it"].close()
    elif word == "high":
        number = os.dup2(sockets["it"].fileno(), int(rest[0]))
        os.close(sockets["it"].detach())
        sockets["it"] = socket.socket(fileno=number)
    elif word == "give":
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(rest[0])
            other.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sockets["it"].fileno()]))])
    elif word == "take":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(rest[0])
            server.listen()
            print("waiting", flush=True)
            sockets["it"] = socket.socket(fileno=receive_descriptor(server.accept()[0]))
    elif word == "child":
        if os.fork() == 0:
            stay()
    elif word == "orphan":
        told, tell = os.pipe()
        if (middle := os.fork()) == 0:
            if os.fork() == 0:
                os.write(tell, str(os.getpid()).encode())
                os.close(0)
                os.close(2)
                time.sleep(600)
            os._exit(0)
        os.waitpid(middle, 0)
        return os.read(told, 16).decode()
    elif word == "unshare":
        if libc.unshare(int(rest[0], 16)) != 0:
            return os.strerror(ctypes.get_errno())
    elif word == "apart":
        # A thread with a descriptor table of its own, which goes on holding what this one lets go of.
        ready = threading.Event()
        threading.Thread(target=keep_apart, args=(ready,), daemon=True).start()
        ready.wait()
    elif word == "forge":
        return forge_executable(rest[0])
    elif word == "exec":
        os.execv(rest[0], rest)
    elif word == "dumpable":
        libc.prctl(4, int(rest[0]), 0, 0, 0)
    elif word == "spawn":
        return str(os.spawnv(os.P_NOWAIT, rest[0], rest))
    elif word == "pid":
        return str(os.getpid())
    elif word == "as":
        # A new process with exactly this number, as only root may ask for it (clone3 with set_tid).
        number = ctypes.c_int(int(rest[0]))
        arguments = (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(number), 1, 0)
        made = libc.syscall(435, ctypes.byref(arguments), 80)
        if made == 0:
            stay()
        return str(made) if made > 0 else os.strerror(ctypes.get_errno())
    else:
        return f"unknown: {word}"
    return "done"


def main():
    while True:
        # Unbuffered: nothing is read ahead that a program executed later should read.
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(0, 1)
            if byte == b"":
                os._exit(0)
            line += byte
        try:
            print(obey(*line.decode().split()), flush=True)
        except OSError as error:
            print(f"failed: {error.strerror}", flush=True)


main()
