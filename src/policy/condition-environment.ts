import { type ASTNode, Environment } from "@marcbachmann/cel-js";
import { RE2JS } from "re2js";
import { fieldsIn } from "./time-zone.js";

/** The variables of a condition. Members are listed where their shape is known; `args` is whatever the caller sent. */
export const KNOWN_MEMBERS: Readonly<Record<string, readonly string[] | undefined>> = {
  args: undefined,
  caller: ["id", "name", "trustDomain", "evidence", "launchedBy", "labels"],
  subject: ["type", "id", "properties"],
  user: ["id", "properties"],
  actors: undefined,
  action: ["name", "properties"],
  resource: ["type", "id", "name", "tool", "uri", "prompt", "labels", "properties"],
  request: ["method", "path", "query"],
  context: undefined,
  now: [],
};

/**
 * Functions of the library that ours stand in for, by name and number of arguments: its `matches` backtracks (a 31-character input took 31 s),
 * its time zones follow the zone and the summer time of this very machine, its case conversions are not the ASCII ones that CEL has, a
 * duration of a megabyte of digits takes quadratic time, and so does a search from the end, in native code that nothing can interrupt.
 */
const OURS: Readonly<Record<string, string>> = {
  "matches/1": "matchesLinear",
  "lowerAscii/0": "lowerAsciiOnly",
  "upperAscii/0": "upperAsciiOnly",
  "lastIndexOf/1": "lastIndexLinear",
  "lastIndexOf/2": "lastIndexLinear",
  "duration/1": "durationOfText",
  "timestamp/1": "timestampOf",
  "getDate/1": "getDateIn",
  "getDayOfMonth/1": "getDayOfMonthIn",
  "getDayOfWeek/1": "getDayOfWeekIn",
  "getDayOfYear/0": "getDayOfYearUtc",
  "getDayOfYear/1": "getDayOfYearIn",
  "getFullYear/1": "getFullYearIn",
  "getHours/1": "getHoursIn",
  "getMilliseconds/1": "getMillisecondsIn",
  "getMinutes/1": "getMinutesIn",
  "getMonth/1": "getMonthIn",
  "getSeconds/1": "getSecondsIn",
};
const THEIRS = new Map(Object.entries(OURS).map(([given, ours]) => [ours, given.slice(0, given.indexOf("/"))]));

/** Functions whose last argument is a time zone, by the name that is evaluated. */
export const ZONED: ReadonlySet<string> = new Set(
  Object.values(OURS).filter((name) => name.startsWith("get") && name.endsWith("In")),
);
export const LINEAR_MATCHES = "matchesLinear";

/** Makes a parsed call name our function in place of the library's. Only before the expression is checked for the first time. */
export function nameOurs(node: ASTNode & { op: "call" | "rcall" }): void {
  const parameters = node.op === "call" ? node.args[1] : node.args[2];
  const key = `${node.args[0]}/${parameters.length}`;
  const ours = Object.hasOwn(OURS, key) ? OURS[key] : undefined;
  if (ours !== undefined) (node.args as unknown as [string, ...unknown[]])[0] = ours;
}

/** A message as its reader wrote the names. */
export function inTheirNames(message: string): string {
  return withoutDyn(message.replaceAll(/\b[a-zA-Z]{6,20}\b/g, (word) => THEIRS.get(word) ?? word));
}

/** `dyn<map<string, list<double>>> <= int` as `map<string, list<double>> <= int`: that its type is seen only now is of no interest to a reader. */
function withoutDyn(message: string): string {
  const start = message.indexOf("dyn<");
  if (start === -1) return message;
  const inner = start + "dyn<".length;
  let open = 1;
  let end = inner;
  for (; end < message.length && open > 0; end += 1) {
    if (message[end] === "<") open += 1;
    if (message[end] === ">") open -= 1;
  }
  const type = message.slice(inner, open === 0 ? end - 1 : end);
  return `${message.slice(0, start)}${withoutDyn(type)}${withoutDyn(message.slice(end))}`;
}

/** What conditions are parsed, checked and evaluated in, before it has variables. The limits bound the time to parse what a rule file holds. */
export function celEnvironment(): Environment {
  const environment = new Environment({
    enableOptionalTypes: true,
    // JSON is heterogeneous: a list of an argument and a literal need not be of one type.
    homogeneousAggregateLiterals: false,
    limits: { maxAstNodes: 400, maxDepth: 24, maxListElements: 200, maxMapEntries: 50, maxCallArguments: 8 },
  });
  environment.registerFunction(`string.${LINEAR_MATCHES}(string): bool`, (text: string, pattern: string) =>
    linearPattern(pattern).matcher(text).find(),
  );
  environment.registerFunction("string.lowerAsciiOnly(): string", (text: string) =>
    text.replaceAll(/[A-Z]+/g, (letters) => letters.toLowerCase()),
  );
  environment.registerFunction("string.upperAsciiOnly(): string", (text: string) =>
    text.replaceAll(/[a-z]+/g, (letters) => letters.toUpperCase()),
  );
  environment.registerFunction("string.lastIndexLinear(string): int", (text: string, searched: string) =>
    BigInt(lastIndex(text, searched)),
  );
  environment.registerFunction(
    "string.lastIndexLinear(string, int): int",
    (text: string, searched: string, from: bigint) => {
      if (searched === "") return from;
      if (from < 0n || from >= BigInt(text.length)) throw new Error("lastIndexOf: index out of range");
      return BigInt(lastIndex(text.slice(0, Number(from) + searched.length), searched));
    },
  );
  registerBytesOrder(environment);
  registerTime(environment);
  environment.registerFunction("int(uint): int", (value: { valueOf(): bigint }) => asInt(value.valueOf()));
  return environment;
}

/** V8 searches forwards in about linear time, backwards in that of both lengths multiplied. */
function lastIndex(text: string, searched: string): number {
  if (searched.length > text.length) return -1;
  const found = reversed(text).indexOf(reversed(searched));
  return found === -1 ? -1 : text.length - found - searched.length;
}

function reversed(text: string): string {
  return text.split("").reverse().join("");
}

function registerBytesOrder(environment: Environment): void {
  const ordered = (operator: string, holds: (order: number) => boolean) => {
    environment.registerOperator(`bytes ${operator} bytes`, (a: Uint8Array, b: Uint8Array) =>
      holds(Buffer.compare(a, b)),
    );
  };
  ordered("<", (order) => order < 0);
  ordered("<=", (order) => order <= 0);
  ordered(">", (order) => order > 0);
  ordered(">=", (order) => order >= 0);
}

const MAX_INT = 2n ** 63n - 1n;

function asInt(value: bigint): bigint {
  if (value > MAX_INT) throw new Error("integer overflow");
  return value;
}

const TIMESTAMP = "google.protobuf.Timestamp";
const TYPES: Readonly<Record<string, string>> = { now: TIMESTAMP, actors: "list<string>" };

/** The environment of the conditions of rules. */
export function conditionEnvironment(): Environment {
  const environment = celEnvironment();
  for (const variable of Object.keys(KNOWN_MEMBERS)) {
    environment.registerVariable(variable, TYPES[variable] ?? "map<string, dyn>");
  }
  return environment;
}

const DURATION = "google.protobuf.Duration";
const MAX_TIME_TEXT = 100;
const MAX_SECONDS = 315_576_000_000n;

function registerTime(environment: Environment): void {
  const ownTime = new Environment();
  const duration = ownTime.registerVariable("text", "string").parse("duration(text)");
  environment.registerFunction(`durationOfText(string): ${DURATION}`, (text: string) => {
    if (text.length > MAX_TIME_TEXT) throw new Error(`duration: text longer than ${MAX_TIME_TEXT} characters`);
    const given = duration({ text });
    // The range of google.protobuf.Duration: about 10,000 years.
    if (given.seconds > MAX_SECONDS || given.seconds < -MAX_SECONDS) throw new Error("duration out of range");
    return given;
  });
  environment.registerFunction(`durationOfText(${DURATION}): ${DURATION}`, (given: unknown) => given);
  const timestamp = ownTime.registerVariable("given", "dyn").parse("timestamp(given)");
  environment.registerFunction(`timestampOf(string): ${TIMESTAMP}`, (given: string) => timestamp({ given }));
  environment.registerFunction(`timestampOf(int): ${TIMESTAMP}`, (given: bigint) => timestamp({ given }));
  environment.registerFunction(`timestampOf(${TIMESTAMP}): ${TIMESTAMP}`, (given: Date) => given);

  environment.registerFunction(`int(${TIMESTAMP}): int`, (time: Date) => BigInt(Math.floor(time.getTime() / 1000)));
  environment.registerFunction(`string(${TIMESTAMP}): string`, (time: Date) =>
    time.toISOString().replace(/\.?0*Z$/, "Z"),
  );
  environment.registerFunction(`string(${DURATION}): string`, (given: { toString(): string }) => given.toString());

  const zoned = (name: string, read: (local: Date) => number) => {
    environment.registerFunction(`${TIMESTAMP}.${name}(string): int`, (time: Date, zone: string) =>
      BigInt(read(fieldsIn(zone, time))),
    );
  };
  zoned("getDateIn", (local) => local.getUTCDate());
  zoned("getDayOfMonthIn", (local) => local.getUTCDate() - 1);
  zoned("getDayOfWeekIn", (local) => local.getUTCDay());
  zoned("getDayOfYearIn", dayOfYear);
  zoned("getFullYearIn", (local) => local.getUTCFullYear());
  zoned("getHoursIn", (local) => local.getUTCHours());
  zoned("getMillisecondsIn", (local) => local.getUTCMilliseconds());
  zoned("getMinutesIn", (local) => local.getUTCMinutes());
  zoned("getMonthIn", (local) => local.getUTCMonth());
  zoned("getSecondsIn", (local) => local.getUTCSeconds());
  environment.registerFunction(`${TIMESTAMP}.getDayOfYearUtc(): int`, (time: Date) => BigInt(dayOfYear(time)));
}

function dayOfYear(time: Date): number {
  const date = Date.UTC(time.getUTCFullYear(), time.getUTCMonth(), time.getUTCDate());
  return Math.round((date - Date.UTC(time.getUTCFullYear(), 0, 1)) / 86_400_000);
}

const compiledPatterns = new Map<string, RE2JS>();

/** The compiled RE2 pattern; compiled when a condition is loaded, looked up when it is evaluated. Throws what RE2 says. */
export function linearPattern(pattern: string): RE2JS {
  let compiled = compiledPatterns.get(pattern);
  if (compiled === undefined) {
    compiled = RE2JS.compile(pattern);
    compiledPatterns.set(pattern, compiled);
  }
  return compiled;
}
