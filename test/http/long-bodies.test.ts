import { EventEmitter } from "node:events";
import { expect, test } from "vitest";
import { LongBodies } from "../../src/http/long-bodies.js";
import { createManualClock } from "../workload-api/manual-clock.js";

const clock = createManualClock();

/** A reader of bodies whose reading ends when the test says so. */
function bodies() {
  const long = new LongBodies();
  const begun: string[] = [];
  const ends = new Map<string, () => void>();
  const read = (caller: string, name = caller, connection = new EventEmitter()): Promise<string> =>
    long.read({ caller, connection, clock }, async () => {
      begun.push(name);
      await new Promise<void>((resolve) => ends.set(name, resolve));
      return name;
    });
  const end = async (name: string) => {
    ends.get(name)?.();
    await new Promise((resolve) => setImmediate(resolve));
  };
  return { begun, read, end };
}

test("one body is read at a time, and callers have the place in turn however many one of them sends", async () => {
  const { begun, read, end } = bodies();
  const all = ["a1", "a2", "a3", "a4"].map((name) => read("a", name));
  all.push(read("b", "b1"), read("c", "c1"), read("b", "b2"));
  const order = ["a1", "a2", "b1", "c1", "a3", "b2", "a4"];
  for (let turn = 1; turn <= order.length; turn += 1) {
    expect(begun).toEqual(order.slice(0, turn));
    await end(order[turn - 1] ?? "");
  }
  expect(await Promise.all(all)).toEqual(["a1", "a2", "a3", "a4", "b1", "c1", "b2"]);
  const later = read("a", "later");
  expect(begun.at(-1)).toBe("later");
  await end("later");
  expect(await later).toBe("later");
});

test("the place is free again when a body could not be read", async () => {
  const long = new LongBodies();
  const sender = { caller: "a", connection: new EventEmitter(), clock };
  const failed = long.read(sender, () => Promise.reject(new Error("no JSON")));
  const next = long.read(sender, async () => "read");
  await expect(failed).rejects.toThrow("no JSON");
  expect(await next).toBe("read");
});

test("so many bodies of one caller wait and no more; another's are not counted", async () => {
  const { begun, read, end } = bodies();
  const first = read("a", "a0");
  const waiting = Array.from({ length: 16 }, (_, index) => read("a", `a${index + 1}`));
  await expect(read("a", "too many")).rejects.toMatchObject({ code: "long-bodies", status: 503 });
  const other = read("b");
  await end("a0");
  await end("a1");
  await end("b");
  expect(await other).toBe("b");
  for (let index = 2; index <= 16; index += 1) await end(`a${index}`);
  expect(await Promise.all([first, ...waiting])).toHaveLength(17);
  expect(begun).not.toContain("too many");
});

test("who waits for too long is refused, and who has gone is not waited for", async () => {
  const { begun, read, end } = bodies();
  const first = read("a");
  const leaving = new EventEmitter();
  const [gone, stays] = [read("b", "gone", leaving), read("b", "stays")];
  leaving.emit("close");
  await expect(gone).rejects.toMatchObject({ code: "caller-gone" });
  await clock.advance(9_000);
  const late = read("c", "late");
  await clock.advance(1_001);
  await expect(stays).rejects.toMatchObject({ code: "long-bodies", status: 503 });
  await end("a");
  await end("late");
  expect(await Promise.all([first, late])).toEqual(["a", "late"]);
  expect(begun).toEqual(["a", "late"]);
});
