import { expect, test } from "vitest";
import { byName } from "../../src/http/by-name.js";

test("what is known of a name is what was made of it as it is written", () => {
  const made: string[] = [];
  const known = byName((name) => {
    made.push(name);
    return { lower: name.toLowerCase() };
  });
  expect(known("Accept")).toBe(known("Accept"));
  expect(known("accept")).toEqual({ lower: "accept" });
  expect(made).toEqual(["Accept", "accept"]);
});

test("what is false is remembered too", () => {
  let asked = 0;
  const known = byName(() => {
    asked += 1;
    return false;
  });
  expect([known("a b"), known("a b")]).toEqual([false, false]);
  expect(asked).toBe(1);
});

test("names that nobody has bounded take no more memory than those of a program", () => {
  let made = 0;
  const known = byName((name) => {
    made += 1;
    return { name };
  });
  const long = "x".repeat(65);
  expect(known(long)).not.toBe(known(long));
  const first = known("first");
  for (let index = 0; index < 511; index += 1) known(`name-${index}`);
  expect(known("first")).toBe(first);
  known("one-more");
  made = 0;
  expect(known("first")).toEqual(first);
  expect(made).toBe(1);
});
