/** One run of Node's own `fetch`: the requests of a JSON document on standard input, one after the other. */
import { createReadStream, readFileSync } from "node:fs";
import { text } from "node:stream/consumers";

const answers = [];
for (const { method, url, headers, file, chunked, stream } of JSON.parse(await text(process.stdin))) {
  const body =
    file === undefined ? {} : { body: chunked ? createReadStream(file) : readFileSync(file), duplex: "half" };
  const answer = await fetch(url, { method, headers, redirect: "manual", ...body });
  if (stream) {
    for await (const piece of answer.body) process.stdout.write(piece);
    continue;
  }
  answers.push({
    status: answer.status,
    headers: [...answer.headers],
    body: Buffer.from(await answer.arrayBuffer()).toString("base64"),
    failure: answer.status < 400 ? null : `${answer.status} ${answer.statusText}`,
  });
}
process.stdout.write(`${JSON.stringify(answers)}\n`);
