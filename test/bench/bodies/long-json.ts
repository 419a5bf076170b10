/** JSON objects at the limit of what a body may hold, each of another shape. */
export type Shape = readonly [name: string, object: (bytes: number) => string];

const repeated = (unit: string, bytes: number): string => {
  const count = Math.floor(bytes / (unit.length + 1));
  return `${`${unit},`.repeat(count - 1)}${unit}`;
};

const filled = (bytes: number, unit: (index: number) => string): string => {
  const units: string[] = [];
  for (let size = 0, index = 0; ; index += 1) {
    const next = unit(index);
    size += Buffer.byteLength(next) + 1;
    if (size > bytes) return units.join(",");
    units.push(next);
  }
};

const keyed = (count: number, key: (index: number) => string) =>
  `{${Array.from({ length: count }, (_, index) => `${JSON.stringify(key(index))}:${index}`).join(",")}}`;

/** Keys that V8 takes for numbers of elements, a power of two apart. */
const colliding = (index: number) => String(index * 65_536);

const LEVELS = 56;

const row = (index: number) => `{"id":${index},"name":"row ${index}","ok":true}`;

const ownKeys = (count: number) => (index: number) =>
  `{${Array.from({ length: count }, (_, key) => `"k${(index * count + key).toString(36)}":1`).join(",")}}`;

const few = (bytes: number, count: number, unit: (index: number) => string): string => {
  const units = Array.from({ length: Math.min(count, Math.floor(bytes / unit(count).length)) }, (_, index) =>
    unit(index),
  );
  return units.join(",");
};

export const shapes: readonly Shape[] = [
  ["40,000 empty objects", (bytes) => `{"l":[${repeated("{}", Math.min(bytes, 120_000))}]}`],
  ["170,000 digits", (bytes) => `{"l":[${repeated("1", Math.min(bytes, 340_000))}]}`],
  ["7,000 objects of different keys", (bytes) => `{"l":[${few(bytes, 7_000, ownKeys(1))}]}`],
  ["20,000 rows of a table", (bytes) => `{"l":[${few(bytes, 20_000, row)}]}`],
  ["empty objects", (bytes) => `{"l":[${repeated("{}", bytes)}]}`],
  ["empty lists", (bytes) => `{"l":[${repeated("[]", bytes)}]}`],
  ["digits", (bytes) => `{"l":[${repeated("1", bytes)}]}`],
  ["fractions", (bytes) => `{"l":[${filled(bytes, (index) => `${index}.${index}5`)}]}`],
  ["large numbers", (bytes) => `{"l":[${repeated("9007199254740991", bytes)}]}`],
  ["short texts", (bytes) => `{"l":[${filled(bytes, (index) => `"${index.toString(36)}"`)}]}`],
  ["rows of a table", (bytes) => `{"l":[${filled(bytes, row)}]}`],
  ["objects of different keys", (bytes) => `{"l":[${filled(bytes, ownKeys(1))}]}`],
  ["objects of six different keys", (bytes) => `{"l":[${filled(bytes, ownKeys(6))}]}`],
  ["objects of numbered keys", (bytes) => `{"l":[${repeated('{"300":1}', bytes)}]}`],
  [
    "objects of 10,000 keys",
    (bytes) => `{"l":[${filled(bytes, (list) => keyed(10_000, (index) => `k${list}_${index}`))}]}`,
  ],
  ["one object of 10,000 keys", () => keyed(10_000, (index) => `key${index}`)],
  ["keys that collide", (bytes) => `{"l":[${filled(bytes, () => keyed(10_000, colliding))}]}`],
  ["one object of 100,000 keys", () => keyed(100_000, (index) => `k${index.toString(36)}`)],
  ["deep", (bytes) => `{"l":[${filled(bytes, () => `${'{"d":['.repeat(LEVELS / 2)}1${"]}".repeat(LEVELS / 2)}`)}]}`],
  ["one text", (bytes) => `{"t":"${"x".repeat(bytes)}"}`],
  ["one text of other letters", (bytes) => `{"t":"${"é".repeat(bytes / 2)}"}`],
  ["a text of escapes", (bytes) => `{"t":"${"\\u0041".repeat(bytes / 6)}"}`],
  ["a text of quotation marks", (bytes) => `{"t":"${'\\"'.repeat(bytes / 2)}"}`],
  ["white space", (bytes) => `{"l":[${" ".repeat(bytes)}1]}`],
  ["one long number", (bytes) => `{"n":${"1".repeat(bytes)}}`],
  ["one long key", (bytes) => `{"${"k".repeat(bytes)}":1}`],
];
