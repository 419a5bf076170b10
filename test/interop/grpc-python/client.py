"""Calls the ledger at an address, in each of the ways that gRPC has, and says in a line of JSON what became of it."""

import hashlib
import json
import os
import sys
import threading

import grpc


def plain(value):
    return value


def outcome(call):
    try:
        return {"value": call()}
    except grpc.RpcError as error:
        return {"code": error.code().name, "details": error.details(), "decision": trailer(error)}


def trailer(error):
    return dict(error.trailing_metadata() or ()).get("agentid-decision", "")[:4]


channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.max_receive_message_length", -1)])
names = {"request_serializer": plain, "response_deserializer": plain}
get = channel.unary_unary("/shop.Ledger/Get", **names)
secret = channel.unary_unary("/shop.Ledger/Secret", **names)
add = channel.stream_unary("/shop.Ledger/Add", **names)
listing = channel.unary_stream("/shop.Ledger/List", **names)
follow = channel.stream_stream("/shop.Ledger/Follow", **names)
large = os.urandom(8 * 1024 * 1024)

print(json.dumps(outcome(lambda: get(b"hello", timeout=20).decode())))
print(json.dumps(outcome(lambda: secret(b"hello", timeout=20).decode())))
print(json.dumps(outcome(lambda: add(iter([b"12", b"345"]), timeout=20).decode())))
print(json.dumps(outcome(lambda: [item.decode() for item in listing(b"3", timeout=20)])))
print(json.dumps(outcome(lambda: [item.decode() for item in follow(iter([b"a", b"b"]), timeout=20)])))
print(json.dumps(outcome(lambda: hashlib.sha256(get(large, timeout=20)).digest() == hashlib.sha256(large).digest())))
print(json.dumps(outcome(lambda: get(b"slow", timeout=1).decode())))

over = threading.Event()


def asked():
    # A call whose requests are at their end might end well before it is cancelled.
    yield b"a"
    over.wait(20)


stream = follow(asked(), timeout=20)
next(stream)
stream.cancel()
over.set()
print(json.dumps(outcome(lambda: [item.decode() for item in stream])))
