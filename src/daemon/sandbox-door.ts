import { createServer, type Socket } from "node:net";
import type { Caller, CallerAttestor } from "../attestation/caller.js";
import { CodedError, messageOf } from "../coded-error.js";
import { type DoorAnswer, type DoorRequest, doorRequest } from "../control-api/sandbox-view.js";
import type { ProcessHandle } from "../platform/platform.js";
import { descriptorOf } from "../platform/socket-descriptor.js";
import { listenPrivately } from "./private-socket.js";

/** A socket that exists for one launch alone. Who comes through it first shuts it behind him. */
export interface Door {
  isOpen(): boolean;
  /** Idempotent. */
  shut(): void;
}

export interface DoorOptions {
  readonly path: string;
  /** Who asked for the launch; the handle passes to the door. */
  readonly asker: ProcessHandle;
  readonly attestor: CallerAttestor;
  /** Decides about who stands at the door; `door.shut()` lets go of everybody else. What it throws is the refusal. */
  readonly admit: (inside: Caller, request: DoorRequest, door: Door) => Promise<DoorAnswer>;
  /** Called before the answer. */
  readonly refused: (reason: string) => void;
  readonly onShut: () => void;
}

/** From the grant until somebody inside asks: bubblewrap and Node start meanwhile. */
const DOOR_OPEN_MS = 30_000;
/** From connecting at the door until the question is there, and from the answer until the connection ends. */
const PATIENCE_AT_DOOR_MS = 5_000;
/** One comes through; a few more may try. */
const MAX_AT_DOOR = 4;
/** Who has gone comes through no door. */
const WATCH_ASKER_MS = 250;
const MAX_REQUEST_BYTES = 64 * 1024;

export async function openDoor(options: DoorOptions): Promise<Door> {
  const { path, asker } = options;
  const connections = new Set<Socket>();
  let open = true;
  const isOpen = () => open;
  const shutBut = (but?: Socket): void => {
    if (!open) return;
    open = false;
    clearTimeout(timer);
    clearInterval(watch);
    asker.close();
    server.close();
    for (const connection of connections) if (connection !== but) connection.destroy();
    options.onShut();
  };
  const server = createServer((connection) => {
    connections.add(connection);
    connection.once("close", () => connections.delete(connection));
    connection.on("error", () => connection.destroy());
    const here: Door = { isOpen, shut: () => shutBut(connection) };
    answer(connection, here, options).catch(() => connection.destroy());
  });
  server.maxConnections = MAX_AT_DOOR;
  const timer = setTimeout(() => shutBut(), DOOR_OPEN_MS).unref();
  const watch = setInterval(() => asker.isAlive() || shutBut(), WATCH_ASKER_MS).unref();
  try {
    await listenPrivately(server, path);
  } catch (thrown) {
    shutBut();
    throw thrown;
  }
  return { isOpen, shut: () => shutBut() };
}

async function answer(connection: Socket, door: Door, { attestor, admit, refused }: DoorOptions): Promise<void> {
  let said: DoorAnswer;
  try {
    // At accept: the kernel's word on who connected.
    const inside = await attestor.ofUnixSocket(descriptorOf(connection));
    try {
      said = await admit(inside, doorRequest.parse(JSON.parse(await firstLine(connection))), door);
    } finally {
      inside.close();
    }
  } catch (thrown) {
    const hint = thrown instanceof CodedError ? thrown.hint : undefined;
    said = { refused: messageOf(thrown), ...(hint === undefined ? {} : { hint }) };
    try {
      refused(said.refused);
    } catch (unrecorded) {
      said = { ...said, refused: `${said.refused} (not on record: ${messageOf(unrecorded)})` };
    }
  }
  connection.setTimeout(PATIENCE_AT_DOOR_MS, () => connection.destroy());
  connection.end(`${JSON.stringify(said)}\n`);
}

/** Rejects when the connection ends, or patience does, before a line is there. */
function firstLine(connection: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    const settle = (settled: () => void): void => {
      clearTimeout(timer);
      // What still comes is thrown away.
      connection.off("data", read);
      connection.off("close", gone);
      settled();
    };
    const fail = (why: string): void => settle(() => reject(new CodedError("bad-request", why)));
    const gone = (): void => fail("the connection ended before it asked");
    const read = (chunk: string): void => {
      text += chunk;
      const end = text.indexOf("\n");
      if (end !== -1) settle(() => resolve(text.slice(0, end)));
      else if (text.length > MAX_REQUEST_BYTES) fail("the request is too long");
    };
    const timer = setTimeout(() => fail("nothing was asked in time"), PATIENCE_AT_DOOR_MS).unref();
    if (connection.destroyed) return gone();
    connection.setEncoding("utf8");
    connection.on("data", read);
    connection.once("close", gone);
  });
}
