"""
A process of the race: does the steps that it finds in the variable RACE, and writes a line for everything that was handed to it, together with what it is,
as its launcher had it. It goes on with the rest of the steps after each exec.
"""
import json, os, socket, sys, time

import workload

state = json.loads(os.environ["RACE"])
connections = {}


def start_time():
    with open("/proc/self/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[19])


def write(**line):
    os.write(1, json.dumps(line).encode() + b"\n")


def identity():
    """What this process is at this moment."""
    return {
        "pid": os.getpid(),
        "start": start_time(),
        "program": state["program"],
        "uid": os.geteuid(),
        "groups": sorted(os.getgroups()),
        "launch": state["launch"] if state["launch"] == "agents/launched" else None,
    }


def truth(at):
    """The launcher's word on what runs here, held to the kernel's."""
    exe = os.readlink("/proc/self/exe")
    if exe != state["programs"][state["program"]]:
        write(kind="broken", what=f"{state['program']} runs as {exe}")
    write(kind="truth", at=at, exe=exe, **identity())


def opened_here(name):
    opener = connections[name]["opener"]
    now = identity()
    if opener["pid"] != now["pid"] or opener["start"] != now["start"]:
        return "opener-lives" if alive(opener) else "opener-gone"
    if connections[name]["runs"] != state["runs"]:
        return "opener-changed"
    return "own" if (opener["uid"], opener["groups"]) == (now["uid"], now["groups"]) else "opener-changed"


def alive(opener):
    """A process that has exited and is not reaped yet is none any more."""
    try:
        with open(f"/proc/{opener['pid']}/stat") as stat:
            words = stat.read().rpartition(")")[2].split()
    except OSError:
        return False
    return int(words[19]) == opener["start"] and words[0] not in "ZX"


def socket_of(name):
    held = connections[name]
    if "socket" not in held:
        held["socket"] = socket.socket(fileno=held["fd"])
        held["socket"].settimeout(20)
    return held["socket"]


def record(name, asked, got, relation):
    opener, stream = connections[name]["opener"], connections[name]["stream"]
    # By its first answer at the latest the daemon has seen who opened the connection.
    write(kind="asked", scene=state["scene"], asked=asked, relation=relation, seen=stream > 1, opener=opener, who=identity(), got=got)
    connections[name]["stream"] += 2


def carry(rest, program=None):
    for held in connections.values():
        os.set_inheritable(held["fd"], True)
    kept = {name: {key: value for key, value in held.items() if key != "socket"} for name, held in connections.items()}
    changes = {"steps": rest, "connections": kept}
    if program is not None:
        launch = {"granted": "granted", "agents/launched": None}.get(state["launch"])
        changes.update({"program": program, "runs": state["runs"] + 1, "launch": launch})
    return {**state, **changes}


def execute(program, rest, arguments):
    truth("before exec")
    path = state["programs"][program]
    # A grant is for exactly this command line: everything else passes by without the identity.
    arguments = arguments or [path, "-S", state["worker"]]
    os.execve(path, arguments, {**os.environ, "RACE": json.dumps(carry(rest, program))})


def grant():
    """Asks for the launch as `agentid run` does. Without a grant the race proves nothing."""
    body = json.dumps({"name": "agents/launched", "argv": state["command"], "workingDirectory": state["project"], "adopter": 1}).encode()
    head = f"POST /v1/launch HTTP/1.1\r\nHost: agentid\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with workload.connect(state["control"]) as control:
        control.sendall(head.encode() + body)
        answer = b""
        while more := control.recv(65536):
            answer += more
    if not answer.startswith(b"HTTP/1.1 200"):
        write(kind="broken", what=f"no grant: {answer.decode()[-300:]}")
        os._exit(1)
    state["launch"] = "granted"
    os.chdir(state["project"])


def run(steps):
    for index, (verb, *rest) in enumerate(steps):
        if verb == "open":
            made = workload.connect(state["socket"])
            connections[rest[0]] = {"fd": made.fileno(), "socket": made, "opener": identity(), "runs": state["runs"], "stream": 1}
        elif verb == "close":
            socket_of(rest[0]).close()
            del connections[rest[0]]
        elif verb == "ask":
            name, kind = rest
            before = opened_here(name)
            got = workload.ask(socket_of(name), connections[name]["stream"], kind)
            after = opened_here(name)
            # What changed while it was asked may be answered either way.
            record(name, kind, got, before if before == after else "racing")
        elif verb == "send":
            name, kind = rest
            try:
                workload.send(socket_of(name), connections[name]["stream"], *workload.REQUESTS[kind])
            except workload.Closed:
                pass
        elif verb == "receive":
            name, kind = rest
            record(name, kind, workload.answer(socket_of(name), connections[name]["stream"], kind), "racing")
        elif verb == "exec":
            execute(rest[0], steps[index + 1 :], rest[1] if len(rest) > 1 else None)
        elif verb == "become":
            uid, groups = rest
            os.seteuid(0)
            os.setgroups(groups)
            os.seteuid(uid)
        elif verb == "grant":
            grant()
        elif verb == "leave":
            os.chdir("/")
        elif verb == "fork":
            if os.fork() == 0:
                # A child has no launch of its own: the identity is its parent's, and ends at no exec of the child.
                state["launch"] = None
                run(rest[0])
                os._exit(0)
        elif verb == "reap":
            try:
                os.wait()
            except ChildProcessError:
                pass
        elif verb == "barrier":
            write(kind="barrier", name=rest[0], pid=os.getpid())
            os.read(0, 1)
        elif verb == "pause":
            time.sleep(rest[0])


def main():
    for name, held in state["connections"].items():
        connections[name] = held
    if state["launch"] == "granted" and sys.orig_argv == state["command"] and os.getcwd() == state["project"]:
        state["launch"] = "agents/launched"
    truth("start" if state["runs"] == 0 else "after exec")
    run(state["steps"])
