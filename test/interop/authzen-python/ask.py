"""Asks a decision point with the unmodified AuthZEN clients `decern` and `authzen-policy-backend`; one line of JSON for each answer.

arguments: base URL, PEM of the trust bundle, PEM with certificate and key, path of the Unix socket
"""

import json
import ssl
import sys
import urllib.request

import httpx
from authzen_backend.backend import AuthZENBackend
from decern import Client
from decern.client import DecernError

base, bundle, credentials, socket = sys.argv[1:]
EVALUATION = "/access/v1/evaluation"


def context(certificate=None):
    made = ssl.create_default_context(cafile=bundle)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificate is not None:
        made.load_cert_chain(certificate)
    return made


def tell(name, answer):
    print(json.dumps({"name": name, **answer}), flush=True)


def ask_decern(name, certificate, subject, action):
    handler = urllib.request.HTTPSHandler(context=context(certificate))
    urllib.request.install_opener(urllib.request.build_opener(handler))
    try:
        decided = Client(base).evaluate(
            subject={"type": "user", "id": subject}, action=action, resource={"type": "record", "id": "record-1"}
        )
        tell(name, {"allowed": decided.allowed, "id": decided.context["id"]})
    except DecernError as error:
        tell(name, {"status": error.status_code})


def ask_backend(name, client, url, agent, action):
    with client:
        backend = AuthZENBackend(
            url, "records", token="none", default_subject_type="user", default_resource_type="record", http_client=client
        )
        decided = backend.evaluate({"agent_id": f"auth:{agent}", "tool_name": action, "resource_id": "record-1"})
        tell(name, {"allowed": decided.allowed, "failed": "error" in decided.reason, "reason": decided.reason})


ask_decern("decern permit", credentials, "alice", "write")
ask_decern("decern deny", credentials, "bob", "write")
ask_decern("decern without a certificate", None, "alice", "write")
verified = context(credentials)
ask_backend("backend permit", httpx.Client(verify=verified), base + EVALUATION, "alice", "write")
ask_backend("backend deny", httpx.Client(verify=verified), base + EVALUATION, "bob", "write")
ask_backend("backend without a certificate", httpx.Client(verify=context()), base + EVALUATION, "alice", "write")
on_socket = httpx.HTTPTransport(uds=socket)
ask_backend("backend on the socket", httpx.Client(transport=on_socket), "http://localhost" + EVALUATION, "alice", "write")
