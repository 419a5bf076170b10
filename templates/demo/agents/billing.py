"""A billing agent. Knows nothing of TLS, certificates or keys: it calls loopback addresses it finds in its environment.

Its "model" does what the text it reads tells it to, which is what real ones do on a bad day.

One task a line on standard input, one answer a line on standard output.
"""

import json
import os
import re
import sys
import urllib.error
import urllib.request


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
    request.add_header("Content-Type", "application/json")
    request.add_header("Accept", "application/json, text/event-stream")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def call_tool(tool, arguments):
    url = os.environ["AGENTID_URL_PAYMENTS"] + "/mcp"
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    status, answer = post(url, call)
    answer = answer or {}
    if "result" not in answer:
        return {"ok": False, "status": status, "text": answer.get("error", answer).get("message") or answer.get("detail")}
    result = answer["result"]
    return {"ok": not result.get("isError", False), "status": status, "text": result["content"][0]["text"]}


def obey(invoice):
    """Reads an invoice and does what it says."""
    read = call_tool("get_invoice", {"invoice": invoice})
    order = re.search(r"call (\w+) with invoice (\d+) and amount (\d+)", read["text"])
    if not order:
        return {**read, "obeyed": False}
    done = call_tool(order[1], {"invoice": int(order[2]), "amount": int(order[3])})
    return {**done, "obeyed": True, "read": read["text"]}


def main():
    for line in sys.stdin:
        task = json.loads(line)
        answer = obey(task["invoice"]) if task["do"] == "obey" else call_tool(task["tool"], task["arguments"])
        print(json.dumps(answer), flush=True)


main()
