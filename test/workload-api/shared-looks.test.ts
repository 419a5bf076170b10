import { describe, expect, it } from "vitest";
import type { IdentifiedCaller } from "../../src/workload-api/authorization.js";
import { createSharedLooks } from "../../src/workload-api/shared-looks.js";

/** Looks that are made when the test says so. */
function start() {
  const due: (() => void)[] = [];
  const looked: IdentifiedCaller[] = [];
  let failure: Error | undefined;
  const looks = createSharedLooks(
    (make) => void due.push(make),
    (who) => {
      looked.push(who);
      if (failure !== undefined) throw failure;
      return looked.length;
    },
  );
  return {
    looks,
    looked,
    fail: (thrown: Error) => {
      failure = thrown;
    },
    makeAll: () => {
      for (const make of due.splice(0)) make();
    },
  };
}

/** A caller as one call has it: the connection is the same for all of its calls, the rest is not. */
function caller(connection: object): IdentifiedCaller {
  return { caller: {}, connection } as IdentifiedCaller;
}

describe("a shared look", () => {
  it("is one for all calls of a connection that ask before it, and never one from before", async () => {
    const { looks, looked, makeAll } = start();
    const [one, other] = [{}, {}];
    const together = [looks.of(caller(one)), looks.of(caller(one)), looks.of(caller(other))];
    expect(looked).toEqual([]);
    makeAll();
    expect((await Promise.all(together)).map((found) => found())).toEqual([1, 1, 2]);
    const later = looks.of(caller(one));
    expect(looked).toHaveLength(2);
    makeAll();
    expect((await later)()).toBe(3);
  });

  it("tells each of them what it threw, and the next call looks anew", async () => {
    const { looks, looked, fail, makeAll } = start();
    const connection = {};
    const [first, second] = [looks.of(caller(connection)), looks.of(caller(connection))];
    fail(new Error("it executes another program now"));
    makeAll();
    for (const found of [await first, await second]) expect(found).toThrow("it executes another program now");
    expect(looked).toHaveLength(1);
    const third = looks.of(caller(connection));
    makeAll();
    expect(await third).toThrow("it executes another program now");
    expect(looked).toHaveLength(2);
  });
});
