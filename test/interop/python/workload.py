"""An unmodified py-spiffe workload, driven by the interop tests: one subcommand for each thing a workload does.

The Workload API is found through SPIFFE_ENDPOINT_SOCKET. Each result is one line of JSON on standard output.
"""

import base64
import json
import os
import sys
import threading

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from spiffe import JwtSvid, SpiffeId, WorkloadApiClient, X509Source
from spiffetls import ClientTlsMode, ListenOptions, ServerTlsMode, dial, listen
from spiffetls.tlsconfig.authorize import authorize_id


def say(**fields):
    print(json.dumps(fields), flush=True)


def encoded(certificates):
    return [base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in certificates]


def describe(svid, context):
    bundle = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    return {
        "id": str(svid.spiffe_id),
        "chain": encoded(svid.cert_chain),
        "authorities": encoded(bundle.x509_authorities),
    }


def fetch():
    with WorkloadApiClient() as client:
        context = client.fetch_x509_context(timeout=10)
        svids = [describe(svid, context) for svid in context.x509_svids]
        say(svids=svids, default=str(context.default_svid.spiffe_id))


def watch():
    """Says every update until standard input is closed."""
    with WorkloadApiClient() as client:

        def on_success(context):
            say(**describe(context.default_svid, context))

        handler = client.stream_x509_contexts(on_success, lambda error: say(error=str(error)))
        sys.stdin.readline()
        handler.cancel()


def jwt(audience):
    """Fetches a token and validates it twice: by the Workload API, and locally against the JWT bundles."""
    with WorkloadApiClient() as client:
        svid = client.fetch_jwt_svid(audience={audience}, timeout=10)
        validated = client.validate_jwt_svid(token=svid.token, audience=audience, timeout=10)
        bundles = client.fetch_jwt_bundles(timeout=10)
        bundle = bundles.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
        local = JwtSvid.parse_and_validate(svid.token, bundle, {audience})
        try:
            client.validate_jwt_svid(token=svid.token, audience="somebody-else", timeout=10)
            refused = False
        except Exception:
            refused = True
        say(
            id=str(svid.spiffe_id),
            validated=str(validated.spiffe_id),
            local=str(local.spiffe_id),
            audience=sorted(local.audience),
            refused=refused,
        )


def bundles():
    with WorkloadApiClient() as client:
        x509 = client.fetch_x509_bundles(timeout=10).bundles
        tokens = client.fetch_jwt_bundles(timeout=10).bundles
        say(
            x509={bundle.trust_domain.name: len(bundle.x509_authorities) for bundle in x509},
            jwt={bundle.trust_domain.name: len(bundle.jwt_authorities) for bundle in tokens},
        )


def peer_of(connection):
    certificate = connection.get_peer_certificate().to_cryptography()
    from cryptography.x509 import SubjectAlternativeName, UniformResourceIdentifier

    names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    return names.get_values_for_type(UniformResourceIdentifier)[0]


def stop_when_input_closes():
    def wait():
        sys.stdin.readline()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def serve(wanted):
    """Answers one line to each peer that is `wanted`, and says who came, until standard input is closed."""
    stop_when_input_closes()
    with X509Source(timeout_in_seconds=10) as source:
        options = ListenOptions(tls_mode=ServerTlsMode.MTLS, authorize_fn=authorize_id(SpiffeId(wanted)))
        listener = listen("127.0.0.1:0", source, options)
        say(port=listener.getsockname()[1])
        while True:
            connection, _ = listener.accept()
            try:
                connection.do_handshake()
                peer = peer_of(connection)
                say(peer=peer)
                connection.sendall(f"hello {peer}\n".encode())
                connection.shutdown()
            except SSL.Error as error:
                say(refused=repr(error))
            finally:
                connection.close()


def call(address, wanted):
    with X509Source(timeout_in_seconds=10) as source:
        connection = dial(address, source, ClientTlsMode.TLS, authorize_id(SpiffeId(wanted)))
        heard = connection.recv(1024).decode()
        say(peer=peer_of(connection), heard=heard)
        connection.close()


commands = {"fetch": fetch, "watch": watch, "jwt": jwt, "bundles": bundles, "serve": serve, "dial": call}

if __name__ == "__main__":
    commands[sys.argv[1]](*sys.argv[2:])
