// An unmodified agent on the vendors' SDKs: the base URL is all that it is given. They refuse to start without some key.
import { createRequire } from "node:module";

const require = createRequire(`${process.env.SDKS}/`);
const { OpenAI } = require("openai");
const { Anthropic } = require("@anthropic-ai/sdk");
const apiKey = "placeholder";
const openai = new OpenAI({ baseURL: `${process.env.AGENTID_URL_OPENAI}/v1`, apiKey, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: process.env.AGENTID_URL_ANTHROPIC, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "hello" }];
const said = [];

const whole = await openai.chat.completions.create({ model: "m", messages });
said.push(["openai", whole.choices[0].message.content]);
const parts = [];
for await (const chunk of await openai.chat.completions.create({ model: "m", messages, stream: true })) {
  parts.push(chunk.choices[0]?.delta?.content ?? "");
}
said.push(["openai stream", parts]);
const message = await anthropic.messages.create({ model: "m", max_tokens: 9, messages });
said.push(["anthropic", message.content[0].text]);
const texts = [];
const stream = anthropic.messages.stream({ model: "m", max_tokens: 9, messages });
stream.on("text", (text) => texts.push(text));
await stream.finalMessage();
said.push(["anthropic stream", texts]);
const denied = await openai.models.list().catch((error) => [error.status, error.error?.code ?? error.code]);
said.push(["denied", denied]);
process.stdout.write(JSON.stringify({ said, environment: process.env }));
