"""A billing agent: reads an invoice, then tries a refund that is too large.

Nothing in here knows of certificates or policies. Start it with:

    agentid run billing -- python3 agents/billing.py
"""

import json
import os
import sys
import urllib.error
import urllib.request

PROTOCOL_VERSION = "2025-11-25"
# The relay is on this machine: a proxy from the environment would only be in the way.
HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Refused(Exception):
    """The call did not go through; the text says why."""


class McpServer:
    """One MCP server over streamable HTTP."""

    def __init__(self, base_url):
        self.url = base_url.rstrip("/") + "/mcp"
        self.headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        self.last_id = 0
        answer = self.request(
            "initialize",
            {
                "protocolVersion": PROTOCOL_VERSION,
                "capabilities": {},
                "clientInfo": {"name": "billing", "version": "1.0.0"},
            },
        )
        self.headers["MCP-Protocol-Version"] = answer["protocolVersion"]
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def call(self, tool, **arguments):
        """The text that `tool` answers. Raises Refused."""
        result = self.request("tools/call", {"name": tool, "arguments": arguments})
        text = "\n".join(part["text"] for part in result["content"] if part["type"] == "text")
        if result.get("isError"):
            raise Refused(text)
        return text

    def request(self, method, params):
        self.last_id += 1
        answer = self.post({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params})
        if "error" in answer:
            raise Refused(answer["error"]["message"])
        return answer["result"]

    def post(self, message):
        request = urllib.request.Request(self.url, json.dumps(message).encode(), self.headers)
        try:
            with HTTP.open(request, timeout=30) as response:
                self.keep_session(response)
                return read_message(response)
        except urllib.error.HTTPError as refusal:
            raise Refused(reason_of(refusal)) from None
        except urllib.error.URLError as failure:
            raise Refused(f"{self.url} does not answer: {failure.reason}") from None

    def keep_session(self, response):
        session = response.headers.get("Mcp-Session-Id")
        if session is not None:
            self.headers["Mcp-Session-Id"] = session


def read_message(response):
    """The JSON-RPC message in an answer, which a server may send as JSON or as the last event of a stream."""
    body = response.read().decode()
    if response.headers.get_content_type() == "text/event-stream":
        data = [line[5:].strip() for line in body.splitlines() if line.startswith("data:")]
        body = data[-1] if data else ""
    return json.loads(body) if body else {}


def reason_of(refusal):
    """What an HTTP refusal says: the detail of its problem document (RFC 9457), else its status."""
    try:
        problem = json.load(refusal)
        return problem.get("detail") or problem["error"]["message"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"HTTP {refusal.code} {refusal.reason}"


def attempt(server, done, failed, tool, **arguments):
    try:
        server.call(tool, **arguments)
        print(f"billing: {done}", flush=True)
    except Refused as refusal:
        print(f"billing: {failed}: {refusal}", flush=True)


def main():
    url = os.environ.get("AGENTID_URL_PAYMENTS")
    if url is None:
        print("billing: no identity; start me with: agentid run billing -- python3 agents/billing.py", file=sys.stderr)
        return 2
    try:
        payments = McpServer(url)
    except Refused as refusal:
        print(f"billing: payments is out of reach: {refusal}", file=sys.stderr)
        return 1
    attempt(payments, "invoice 1017 read", "invoice 1017 refused", "get_invoice", id=1017)
    attempt(payments, "4200 refunded", "refund refused", "issue_refund", invoice=1017, amount=4200)
    return 0


if __name__ == "__main__":
    sys.exit(main())
