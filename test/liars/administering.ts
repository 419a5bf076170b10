/** Asks the control socket as a program that knows its protocol does: `ask.py CONTROL [connect-first NAME ARGV…]`. */
export const ASK = `import json, os, socket, sys
def answer(control, method="GET", path="/v1/status", body=b""):
    head = f"{method} {path} HTTP/1.1\\r\\nHost: agentid\\r\\nContent-Type: application/json\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
    control.sendall(head.encode() + body)
    told = b""
    while b"\\r\\n\\r\\n" not in told: told += control.recv(65536)
    return int(told.split(b" ", 2)[1])
def connected(path):
    control = socket.socket(socket.AF_UNIX)
    control.settimeout(20)
    control.connect(path)
    return control
if __name__ == "__main__": print(answer(connected(sys.argv[1])), flush=True)
`;

/** Runs, a line at a time, what it is given as Python in JSON; answers with what `value` then is. */
export const AGENT = `import json, os, sys
sys.path.insert(0, os.path.join(os.getcwd(), "agents"))
print("up", os.getpid(), flush=True)
for line in sys.stdin:
    scope = {}
    try:
        exec(json.loads(line), scope)
        print(json.dumps({"value": scope.get("value")}), flush=True)
    except BaseException as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
`;
