import json, os, ssl, sys

sys.path.insert(0, os.environ["PACKAGES"])
# Here the API stands on this machine, which clients would call without a proxy.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = ""
import httpx, requests

allowed, denied = sys.argv[1], "https://denied.test/"
said = [["requests", requests.get(allowed, verify="api.pem", timeout=20).text]]
with httpx.Client(verify=ssl.create_default_context(cafile="api.pem"), timeout=20) as client:
    said.append(["httpx", client.get(allowed).text])
    try:
        client.get(denied)
    except httpx.ProxyError as error:
        said.append(["httpx denied", str(error)])
try:
    requests.get(denied, timeout=20)
except requests.exceptions.ProxyError as error:
    said.append(["requests denied", str(error)])
print(json.dumps(said))
