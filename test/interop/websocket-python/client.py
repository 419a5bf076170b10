"""Opens a WebSocket at each URL and says in a line of JSON what became of it: `URL`, or `URL ORIGIN`."""

import asyncio
import hashlib
import json
import os
import sys

import websockets


async def visit(url, origin):
    try:
        async with websockets.connect(
            url, origin=origin, subprotocols=["v1.chat"], max_size=None, open_timeout=20
        ) as socket:
            await socket.send("hello")
            text = await socket.recv()
            large = os.urandom(8 * 1024 * 1024)
            await socket.send(large)
            same = hashlib.sha256(await socket.recv()).digest() == hashlib.sha256(large).digest()
            latency = await (await socket.ping("are you there"))
            await socket.close(4321, "enough")
            return {
                "text": text,
                "large": same,
                "pong": latency >= 0,
                "subprotocol": socket.subprotocol,
                "closed": socket.close_code,
            }
    except websockets.exceptions.InvalidStatus as refused:
        body = json.loads(refused.response.body)
        return {"status": refused.response.status_code, "code": body["code"]}


async def main():
    for line in sys.argv[1:]:
        url, _, origin = line.partition(" ")
        print(json.dumps(await visit(url, origin or None)))


asyncio.run(main())
