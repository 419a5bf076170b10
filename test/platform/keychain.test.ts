import { afterEach, beforeEach, expect, test } from "vitest";
import { openKeychain } from "../../src/platform/keychain.js";

// The keychain itself is what this machine may not have; a secret service that never answers cannot be had on demand.
const before = process.env.DBUS_SESSION_BUS_ADDRESS;
beforeEach(() => {
  process.env.DBUS_SESSION_BUS_ADDRESS = "unix:path=/nowhere";
});
afterEach(() => {
  if (before === undefined) delete process.env.DBUS_SESSION_BUS_ADDRESS;
  else process.env.DBUS_SESSION_BUS_ADDRESS = before;
});

function keytarIn(secrets: Map<string, string>) {
  return {
    getPassword: async (service: string, account: string) => secrets.get(`${service}/${account}`) ?? null,
    setPassword: async (service: string, account: string, secret: string) =>
      void secrets.set(`${service}/${account}`, secret),
    deletePassword: async (service: string, account: string) => secrets.delete(`${service}/${account}`),
  };
}

test("a keychain that answers keeps secrets", async () => {
  const keychain = await openKeychain(async () => ({ default: keytarIn(new Map()) }));
  await keychain?.set("agentid", "ca", "secret");
  expect(await keychain?.get("agentid", "ca")).toBe("secret");
  expect(await keychain?.remove("agentid", "ca")).toBe(true);
  expect(await keychain?.get("agentid", "ca")).toBeUndefined();
});

test("no keychain where none is installed, none answers, or it never answers", async () => {
  expect(await openKeychain(async () => Promise.reject(new Error("Cannot find package")))).toBeUndefined();
  const refusing = { ...keytarIn(new Map()), getPassword: () => Promise.reject(new Error("no such interface")) };
  expect(await openKeychain(async () => refusing)).toBeUndefined();
  const dead = { ...keytarIn(new Map()), getPassword: () => new Promise<never>(() => undefined) };
  expect(await openKeychain(async () => dead, 20)).toBeUndefined();
});
