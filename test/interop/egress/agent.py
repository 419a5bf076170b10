# The same in Python.
import json, os, sys

sys.path.insert(0, os.environ["SDKS_PYTHON"])
from anthropic import Anthropic
from openai import OpenAI, PermissionDeniedError

key = "placeholder"
openai = OpenAI(base_url=os.environ["AGENTID_URL_OPENAI"] + "/v1", api_key=key, max_retries=0)
anthropic = Anthropic(base_url=os.environ["AGENTID_URL_ANTHROPIC"], api_key=key, max_retries=0)
messages = [{"role": "user", "content": "hello"}]
said = []

whole = openai.chat.completions.create(model="m", messages=messages)
said.append(["openai", whole.choices[0].message.content])
stream = openai.chat.completions.create(model="m", messages=messages, stream=True)
said.append(["openai stream", [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]])
message = anthropic.messages.create(model="m", max_tokens=9, messages=messages)
said.append(["anthropic", message.content[0].text])
with anthropic.messages.stream(model="m", max_tokens=9, messages=messages) as events:
    said.append(["anthropic stream", list(events.text_stream)])
try:
    openai.models.list()
except PermissionDeniedError as error:
    said.append(["denied", [error.status_code, error.response.json()["code"]]])
print(json.dumps({"said": said, "environment": dict(os.environ)}))
