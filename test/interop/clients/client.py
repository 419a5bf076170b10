"""One run of `requests` or `httpx`: the requests of a JSON document on standard input, one after the other in one session."""

import base64
import json
import sys


def pieces(path):
    with open(path, "rb") as file:
        while piece := file.read(65536):
            yield piece


def with_requests(asked):
    import requests

    with requests.Session() as session:
        for one in asked:
            body = None
            if "file" in one:
                body = pieces(one["file"]) if one.get("chunked") else open(one["file"], "rb")
            answer = session.request(one["method"], one["url"], headers=one.get("headers"), data=body,
                                     allow_redirects=False, stream=one.get("stream", False))
            if one.get("stream"):
                for line in answer.iter_lines(chunk_size=1):
                    print(line.decode(), flush=True)
                continue
            try:
                answer.raise_for_status()
                failure = None
            except requests.HTTPError as error:
                failure = str(error)
            yield answer.status_code, list(answer.raw.headers.items()), answer.content, failure


def with_httpx(asked):
    import httpx

    with httpx.Client() as client:
        for one in asked:
            body = None
            if "file" in one:
                body = pieces(one["file"]) if one.get("chunked") else open(one["file"], "rb").read()
            if one.get("stream"):
                with client.stream(one["method"], one["url"], headers=one.get("headers")) as answer:
                    for line in answer.iter_lines():
                        print(line, flush=True)
                continue
            answer = client.request(one["method"], one["url"], headers=one.get("headers"), content=body)
            try:
                if answer.status_code >= 400:
                    answer.raise_for_status()
                failure = None
            except httpx.HTTPStatusError as error:
                failure = str(error)
            yield answer.status_code, answer.headers.multi_items(), answer.content, failure


library = {"requests": with_requests, "httpx": with_httpx}[sys.argv[1]]
answers = [
    {"status": status, "headers": headers, "body": base64.b64encode(body).decode(), "failure": failure}
    for status, headers, body, failure in library(json.load(sys.stdin))
]
print(json.dumps(answers))
