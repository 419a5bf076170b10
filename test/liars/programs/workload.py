"""The least of a SPIFFE Workload API client: gRPC over HTTP/2 by hand, so that a process can ask on a connection that it, or somebody else, opened."""
import base64, json, socket, struct

SERVICE = "/SpiffeWorkloadAPI/"


class Closed(Exception):
    """The other side ended the connection."""


def connect(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(path)
    return connection


def literal(name, value):
    """A header field that no table keeps (RFC 7541, 6.2.2), so that a connection has no state which an exec could lose."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def request(stream, method, message):
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": SERVICE + method,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
        "workload.spiffe.io": "true",
    }
    headers = b"".join(literal(name, value) for name, value in fields.items())
    body = b"\x00" + struct.pack(">I", len(message)) + message
    return frame(1, 4, stream, headers) + frame(0, 1, stream, body)


def send(connection, stream, method, message):
    opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") if stream == 1 else b""
    try:
        connection.sendall(opening + request(stream, method, message))
    except (BrokenPipeError, ConnectionResetError) as error:
        raise Closed(str(error))


def exactly(connection, count):
    found = b""
    while len(found) < count:
        try:
            more = connection.recv(count - len(found))
        except ConnectionResetError as error:
            raise Closed(str(error))
        if more == b"":
            raise Closed("end of stream")
        found += more
    return found


GRPC_STATUS = bytes.fromhex("9acac8b21234da8f")  # "grpc-status" in HPACK's Huffman code


def status_in(headers):
    """The status where it stands in the header block itself; None where only the connection's table would tell."""
    at = headers.find(GRPC_STATUS)
    if at == -1:
        return None
    at += len(GRPC_STATUS)
    return int(headers[at + 1 : at + 1 + headers[at]])


def receive(connection, stream):
    """The first message of the answer on `stream`, or the status that it ended with."""
    body = b""
    while True:
        head = exactly(connection, 9)
        length, kind, flags, on = int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big")
        payload = exactly(connection, length)
        if kind == 4 and flags & 1 == 0:
            try:
                connection.sendall(frame(4, 1, 0, b""))
            except (BrokenPipeError, ConnectionResetError) as error:
                raise Closed(str(error))
        elif kind == 7:
            raise Closed("GOAWAY")
        elif on != stream:
            continue
        elif kind == 3:
            return "refused", None
        elif kind == 1 and flags & 1:
            return "refused", status_in(payload)
        elif kind == 0:
            body += payload
            if len(body) >= 5 and len(body) >= 5 + int.from_bytes(body[1:5], "big"):
                return "message", body[5 : 5 + int.from_bytes(body[1:5], "big")]


def fields_of(message):
    """Field number and bytes of each length-delimited field of a protobuf message; the others are skipped."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 2:
            length = varint()
            yield key >> 3, message[at : at + length]
            at += length
        else:
            varint()


def uri_in(certificates):
    """The SPIFFE ID in the first of the certificates, which is the SVID."""
    assert certificates[1] == 0x82
    leaf = certificates[: 4 + int.from_bytes(certificates[2:4], "big")]
    at = leaf.index(b"spiffe://")
    assert leaf[at - 2] == 0x86 and leaf.count(b"\x86" + leaf[at - 1 : at] + b"spiffe://") == 1
    return leaf[at : at + leaf[at - 1]].decode()


def ids_in_x509(message):
    svids = [dict(fields_of(svid)) for number, svid in fields_of(message) if number == 1]
    return [uri_in(svid[2]) for svid in svids]


def ids_in_jwt(message):
    tokens = [dict(fields_of(svid))[2].decode() for number, svid in fields_of(message) if number == 1]
    payloads = [token.split(".")[1] for token in tokens]
    return [json.loads(base64.urlsafe_b64decode(payload + "=="))["sub"] for payload in payloads]


def ask(connection, stream, kind):
    """`{"ids": […]}` as they stand in what was handed out, or why nothing was."""
    try:
        send(connection, stream, *REQUESTS[kind])
        return answer(connection, stream, kind)
    except Closed as closed:
        return {"closed": str(closed)}


def answer(connection, stream, kind):
    try:
        outcome, what = receive(connection, stream)
    except Closed as closed:
        return {"closed": str(closed)}
    if outcome == "refused":
        return {"status": what}
    return {"ids": ids_in_x509(what) if kind == "x509" else ids_in_jwt(what)}


REQUESTS = {
    "x509": ("FetchX509SVID", b""),
    "jwt": ("FetchJWTSVID", b"\x0a\x04race"),
}
