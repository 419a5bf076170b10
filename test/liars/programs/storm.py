"""
The launcher of the race. Starts the real daemon as an ordinary user, and lanes that each launch one scene after another until the time is over: processes
that fork, execute, exit, change user, hand on connections and come back under numbers that were used before. Every line that a process writes goes to the
lane's file, between the lane's own words on which process runs what. Judging is left to whoever reads the files.

usage: storm.py SETTINGS (JSON: seconds, seed, lanes, folder, project, node, bin, programs, command, owner, second, group;
second is null where there is one user only)
"""
import ctypes, json, os, random, signal, stat, subprocess, sys, time

settings = json.loads(sys.argv[1])
WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")
libc = ctypes.CDLL(None, use_errno=True)
IS_ROOT = os.geteuid() == 0
OWNER = settings["owner"]
DEADLINE = time.monotonic() + settings["seconds"]


def start_daemon():
    user = {"user": OWNER, "group": OWNER, "extra_groups": []} if settings["second"] is not None else {}
    environment = {"PATH": os.environ["PATH"], "HOME": settings["project"], "TMPDIR": settings["folder"], "NO_COLOR": "1"}
    said = os.path.join(settings["folder"], "daemon.jsonl")
    errors = os.path.join(settings["folder"], "daemon.stderr")
    arguments = [settings["node"], settings["bin"], "dev", "--json"]
    with open(said, "wb") as out, open(errors, "wb") as err:
        daemon = subprocess.Popen(arguments, cwd=settings["project"], env=environment, stdout=out, stderr=err, **user)
    while daemon.poll() is None:
        with open(said) as lines:
            for line in lines:
                if '"ready"' in line and line.endswith("\n"):
                    return daemon, json.loads(line)
        time.sleep(0.02)
    raise SystemExit("the daemon did not start: " + open(errors).read())


def open_to_others(path):
    """The socket's folders are the owner's alone. Here its owner opens them to a second user, as `chmod` would, after agentid has looked."""
    os.chmod(path, 0o777)
    folder = os.path.dirname(path)
    while stat.S_IMODE(os.stat(folder).st_mode) == 0o700:
        os.chmod(folder, 0o711)
        folder = os.path.dirname(folder)


class Lane:
    def __init__(self, number, event):
        self.number = number
        self.random = random.Random(f"{settings['seed']}/{number}")
        self.base = {
            "socket": event["workloadApi"].removeprefix("unix://"),
            "control": event["control"].removeprefix("unix://"),
            "programs": settings["programs"],
            "project": settings["project"],
            "command": settings["command"],
            "worker": WORKER,
        }
        self.out = open(os.path.join(settings["folder"], f"lane-{number}.jsonl"), "wb", buffering=0)
        self.lines = b""

    def write(self, **line):
        self.out.write(json.dumps(line).encode() + b"\n")

    def launch(self, scene, steps, program="alpha", uid=OWNER, groups=(), number=None, pipes=None):
        """A new process that runs `program` as `uid`; with exactly the process number `number` where one is given. Its lines go to the lane's pipe."""
        reading, writing = pipes or os.pipe()
        go_reading, go_writing = os.pipe()
        path = settings["programs"][program]
        state = {**self.base, "scene": scene, "steps": steps, "connections": {}, "program": program, "runs": 0, "launch": None}
        environment = {"PATH": "/usr/bin:/bin", "RACE": json.dumps(state)}
        pid = fork_as(number) if number is not None else os.fork()
        if pid == 0:
            try:
                os.dup2(go_reading, 0)
                os.dup2(writing, 1)
                if settings["second"] is not None:
                    os.setgroups(list(groups))
                    os.setresgid(uid, uid, uid)
                    # Root in reserve only where the scene changes user.
                    os.setresuid(0 if scene == "change-of-user" else uid, uid, uid)
                os.chdir("/")
                os.execve(path, [path, "-S", WORKER], environment)
            finally:
                os._exit(9)
        os.close(go_reading)
        if pipes is None:
            os.close(writing)
        self.write(kind="launched", scene=scene, pid=pid, program=program, uid=uid, forced=pid == number)
        return pid, reading, go_writing

    def line(self, reading):
        while b"\n" not in self.lines:
            more = os.read(reading, 65536)
            if more == b"":
                return None
            self.lines += more
        line, _, self.lines = self.lines.partition(b"\n")
        self.out.write(line + b"\n")
        return json.loads(line)

    def until_barrier(self, reading, name):
        while (line := self.line(reading)) is not None:
            if line["kind"] == "barrier" and line["name"] == name:
                return line
            if line["kind"] == "broken":
                return None
        return None

    def until_end(self, reading):
        while self.line(reading) is not None:
            pass
        os.close(reading)

    def whole(self, scene, steps, **options):
        pid, reading, go = self.launch(scene, steps, **options)
        self.until_end(reading)
        os.close(go)
        os.waitpid(pid, 0)

    # Scenes. Each ends with an honest process of the same lane asking for itself, so that a daemon that refuses everything fails.

    def kind(self):
        return self.random.choice(["x509", "x509", "jwt"])

    def program(self):
        return self.random.choice(["alpha", "beta", "gamma"])

    def own(self):
        who = self.random.choice([{}, {}, {"groups": (settings["group"],)}, {"uid": settings["second"]}])
        if settings["second"] is None:
            who = {}
        self.whole("own", [["open", "a"], ["ask", "a", self.kind()], ["ask", "a", self.kind()]], program=self.program(), **who)

    def own_in_a_group(self):
        self.whole("own", [["open", "a"], ["ask", "a", self.kind()]], groups=(settings["group"],))

    def storm(self):
        steps = []
        for each in range(20):
            steps += [["open", f"{each}"]]
            if self.random.random() < 0.5:
                steps += [["ask", f"{each}", self.kind()]]
            if self.random.random() < 0.7:
                steps += [["close", f"{each}"]]
        self.whole("reconnect-storm", steps, program=self.program())

    def execute(self):
        first, second = self.program(), self.program()
        between = [["ask", "a", self.kind()]] if self.random.random() < 0.5 else []
        steps = [["open", "a"], *between, ["exec", second], ["ask", "a", self.kind()], ["open", "b"], ["ask", "b", self.kind()]]
        self.whole("exec-after-connect", steps, program=first)

    def execute_while_asked(self):
        first, second = self.program(), self.program()
        steps = [["open", "a"], ["send", "a", "x509"], ["pause", self.random.random() * 0.004], ["exec", second]]
        self.whole("exec-while-asked", [*steps, ["receive", "a", "x509"], ["open", "b"], ["ask", "b", "x509"]], program=first)

    def exec_chain(self):
        steps = []
        for each in range(4):
            steps += [["open", f"{each}"], ["ask", f"{each}", self.kind()], ["exec", self.program()]]
        self.whole("exec-chain", [*steps, ["open", "last"], ["ask", "last", "x509"]], program=self.program())

    def child_of_the_living(self):
        child = [["ask", "a", self.kind()], ["open", "b"], ["ask", "b", self.kind()]]
        self.whole("child-speaks", [["open", "a"], ["fork", child], ["reap"], ["open", "c"], ["ask", "c", "x509"]], program=self.program())

    def exit_while_asked(self):
        child = [["receive", "a", "x509"], ["open", "b"], ["ask", "b", "x509"]]
        steps = [["open", "a"], ["fork", child], ["send", "a", "x509"], ["pause", self.random.random() * 0.004]]
        self.whole("exit-while-asked", steps, program=self.program())

    def orphan_with_connection(self, scene="opener-exited", again=None, before=(), first="alpha"):
        """The opener goes, and its child asks on what it opened; `again` is what runs under the opener's number by then."""
        child = [["barrier", "orphan"], ["ask", "a", self.kind()], ["ask", "a", self.kind()], ["open", "b"], ["ask", "b", self.kind()]]
        pipes = os.pipe()
        pid, reading, go = self.launch(scene, [*before, ["open", "a"], ["ask", "a", "x509"], ["fork", child]], program=first, pipes=pipes)
        if self.until_barrier(reading, "orphan") is None:
            os.close(pipes[1])
            os.waitpid(pid, 0)
            os.close(go)
            return self.until_end(reading)
        os.waitpid(pid, 0)
        successor = None
        if again is not None:
            honest = [["open", "a"], ["ask", "a", self.kind()], ["barrier", "successor"], ["open", "b"], ["ask", "b", self.kind()]]
            successor = self.launch(scene, honest, program=again, number=pid, pipes=pipes)
            # It lives and has asked for itself, under the number, before the orphan asks.
            self.until_barrier(reading, "successor")
        os.close(pipes[1])
        os.write(go, b"x")
        if successor is not None:
            os.write(successor[2], b"x")
        self.until_end(reading)
        os.close(go)
        if successor is not None:
            os.close(successor[2])
            os.waitpid(successor[0], 0)

    def number_used_again(self):
        self.orphan_with_connection("number-used-again", again=self.program(), first=self.random.choice(["alpha", "beta"]))

    def change_of_user(self):
        first, second = self.random.sample([OWNER, settings["second"]], 2)
        steps = [["open", "a"], ["ask", "a", "jwt"], ["become", second, []], ["ask", "a", "x509"], ["open", "b"], ["ask", "b", "x509"]]
        self.whole("change-of-user", steps, uid=first)

    def launched(self):
        steps = [["open", "early"], ["ask", "early", "x509"], ["grant"], ["open", "waiting"], ["ask", "waiting", "x509"], ["exec", "alpha", settings["command"]]]
        asked = [["open", "a"], ["ask", "a", self.kind()], ["ask", "waiting", "x509"]]
        after = self.random.choice([
            [],
            [["exec", "alpha", settings["command"]], ["ask", "a", "x509"], ["open", "b"], ["ask", "b", "x509"]],
            [["exec", "beta"], ["ask", "a", "x509"], ["open", "b"], ["ask", "b", "x509"], ["exec", "alpha", settings["command"]], ["open", "c"], ["ask", "c", "x509"]],
            [["fork", [["open", "b"], ["ask", "b", "x509"], ["exec", "alpha", settings["command"]], ["open", "c"], ["ask", "c", "x509"]]], ["reap"], ["ask", "a", "x509"]],
        ])
        self.whole("launched", [*steps, *asked, *after])

    def launched_through_a_shim(self):
        steps = [["grant"], ["exec", "beta"], ["open", "a"], ["ask", "a", "x509"], ["exec", "alpha", settings["command"]], ["open", "b"], ["ask", "b", "x509"]]
        self.whole("launched-through-a-shim", steps)

    def launched_elsewhere(self):
        steps = [["grant"], ["leave"], ["exec", "alpha", settings["command"]], ["open", "a"], ["ask", "a", "x509"]]
        self.whole("launched-elsewhere", steps)

    def same_command_without_a_grant(self):
        self.whole("not-launched", [["exec", "alpha", settings["command"]], ["open", "a"], ["ask", "a", self.kind()]])

    def launched_number_used_again(self):
        self.orphan_with_connection("launched-number-used-again", again="alpha", before=[["grant"], ["exec", "alpha", settings["command"]]])

    def agentid_run(self):
        """The real launcher, a Node that replaces itself."""
        reading, writing = os.pipe()
        state = {**self.base, "scene": "agentid-run", "connections": {}, "program": "alpha", "runs": 1, "launch": "granted"}
        state["steps"] = [["open", "a"], ["ask", "a", self.kind()], ["exec", "alpha", settings["command"]], ["open", "b"], ["ask", "b", "x509"]]
        user = {"user": OWNER, "group": OWNER, "extra_groups": []} if settings["second"] is not None else {}
        environment = {"PATH": "/usr/bin:/bin", "RACE": json.dumps(state), "AGENTID_CONTROL": f"unix://{self.base['control']}"}
        arguments = [settings["node"], settings["bin"], "run", "launched", "--", *settings["command"]]
        process = subprocess.Popen(arguments, cwd=settings["project"], env=environment, stdin=subprocess.DEVNULL, stdout=writing, **user)
        os.close(writing)
        self.until_end(reading)
        if process.wait() != 0:
            self.write(kind="broken", what=f"agentid run ended with {process.returncode}")

    def node_client(self):
        """Another language and another executable: the project's own client for Node."""
        user = {"user": OWNER, "group": OWNER, "extra_groups": []} if settings["second"] is not None else {}
        environment = {"PATH": "/usr/bin:/bin", "SPIFFE_ENDPOINT_SOCKET": f"unix://{self.base['socket']}"}
        arguments = [settings["node"], settings["bin"], "svid", "fetch", "--json"]
        process = subprocess.Popen(arguments, cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, **user)
        answer = json.loads(process.stdout.read())
        process.wait()
        who = {"pid": process.pid, "program": "node", "uid": OWNER, "groups": [], "launch": None}
        got = {"ids": [svid["spiffeId"] for svid in answer["svids"]]} if "svids" in answer else {"closed": json.dumps(answer)}
        self.write(kind="asked", scene="node", asked="x509", relation="own", seen=False, opener=who, who=who, got=got)

    def scenes(self):
        often = [self.own, self.storm, self.execute, self.execute_while_asked, self.exec_chain, self.child_of_the_living, self.exit_while_asked]
        often += [self.orphan_with_connection, self.launched, self.launched_through_a_shim, self.launched_elsewhere, self.same_command_without_a_grant]
        if IS_ROOT:
            often += [self.number_used_again, self.launched_number_used_again]
        if settings["second"] is not None:
            often += [self.change_of_user, self.own_in_a_group]
        return often

    def run(self):
        scenes = self.scenes()
        # The lanes together have each scene once, so that a short race has all of them; then at random.
        first = [*scenes, self.agentid_run, self.node_client][self.number :: settings["lanes"]]
        turn = 0
        while time.monotonic() < DEADLINE or turn < len(first):
            scene = first[turn] if turn < len(first) else self.random.choice(scenes)
            # Whole Nodes cost as much as a hundred of the others.
            if turn % 100 == 50:
                scene = self.random.choice([self.agentid_run, self.node_client])
            self.lines = b""
            scene()
            turn += 1


def fork_as(number):
    """A fork whose child has exactly this process number (clone3 with set_tid), or an error that says that somebody else was faster."""
    wanted = ctypes.c_int(number)
    arguments = (ctypes.c_uint64 * 11)(0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1, 0)
    made = libc.syscall(435, ctypes.byref(arguments), 80)
    return made if made >= 0 else os.fork()


def main():
    daemon, event = start_daemon()
    if settings["second"] is not None:
        open_to_others(event["workloadApi"].removeprefix("unix://"))
    children = []
    for number in range(settings["lanes"]):
        pid = os.fork()
        if pid == 0:
            try:
                time.sleep(0.1)  # the kernel counts start times in hundredths: every lane is older than the first agent
                Lane(number, event).run()
                os._exit(0)
            except BaseException as error:
                print(f"lane {number}: {error!r}", file=sys.stderr, flush=True)
                raise
            finally:
                os._exit(1)
        children.append(pid)
    broken = sum(os.waitpid(pid, 0)[1] != 0 for pid in children)
    ended_by_itself = daemon.poll() is not None
    daemon.send_signal(signal.SIGTERM)
    code = daemon.wait()
    print(json.dumps({"brokenLanes": broken, "daemon": "ended" if ended_by_itself else code}))


main()
