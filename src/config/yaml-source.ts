import {
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type ParsedNode,
  parseDocument,
  visit,
  type YAMLMap,
} from "yaml";
import { messageOf } from "../coded-error.js";
import type { ConfigProblem } from "./config-error.js";

/** Keys of mappings and indexes of lists from the top of a file to a value. */
export type ValuePath = readonly (string | number)[];

/** A YAML file as a plain value, and the way back from a value to its line and column. */
export interface YamlSource {
  /** As people name it: `agentid.yaml`. */
  readonly file: string;
  /** Undefined when `syntaxProblems` is not empty; `null` for an empty file. */
  readonly value: unknown;
  readonly syntaxProblems: readonly ConfigProblem[];
  /** The keys of the mapping at `path` as the file orders them; a JavaScript object puts those that look like numbers first. */
  keys(path: ValuePath): readonly string[];
  /** A problem at the value, or with `at: "key"` at the key that leads to it; at the nearest existing parent when there is no such value. */
  problem(path: ValuePath, message: string, at?: "key" | "value"): ConfigProblem;
}

/** One small anchor used a few times is convenience; an anchor of anchors is how a kilobyte becomes a gigabyte. */
const MAX_ALIASES = 100;

/**
 * Parses `text` as one YAML 1.2 document with the core schema: duplicate keys, unknown tags and merge keys are problems, aliases are bounded.
 * Never throws.
 */
export function parseYaml(text: string, file: string): YamlSource {
  const lineCounter = new LineCounter();
  const place = (offset: number, path: ValuePath, message: string): ConfigProblem => {
    const { line, col } = lineCounter.linePos(offset);
    return { file, line, column: col, path: formatPath(path), message };
  };
  try {
    const document = parseDocument(text, {
      lineCounter,
      version: "1.2",
      schema: "core",
      merge: false,
      strict: true,
      stringKeys: true,
      // `duplicateKeys` does it in time that grows with the file, not with its square.
      uniqueKeys: false,
      prettyErrors: false,
      // "silent" would also keep quiet about a second document.
      logLevel: "error",
    });
    const faults = [
      ...[...document.errors, ...document.warnings].map((fault) => place(fault.pos[0], [], lowerFirst(fault.message))),
      ...duplicateKeys(document).map(({ key, offset }) =>
        place(offset, [], `the key ${JSON.stringify(key)} is there twice; keys of a mapping must be unique`),
      ),
    ];
    const root = document.contents;
    return {
      file,
      value: faults.length > 0 ? undefined : document.toJS({ maxAliasCount: MAX_ALIASES }),
      syntaxProblems: faults,
      keys: (path) => {
        const node: unknown = path.length === 0 ? root : document.getIn(path, true);
        const mapping = isAlias(node) ? node.resolve(document) : node;
        return isMap(mapping) ? mapping.items.map(keyOf) : [];
      },
      problem: (path, message, at = "value") => place(offsetOf(root, path, at), path, message),
    };
  } catch (thrown) {
    // The parser recurses: nesting without end overflows its stack (RangeError); too many aliases are a ReferenceError.
    const message = thrown instanceof RangeError ? "nested too deeply" : lowerFirst(messageOf(thrown));
    return {
      file,
      value: undefined,
      syntaxProblems: [{ file, line: 1, column: 1, path: "", message }],
      keys: () => [],
      problem: (path, problem) => ({ file, line: 1, column: 1, path: formatPath(path), message: problem }),
    };
  }
}

/** `identities.agents/billing.launch[1]`. */
function formatPath(path: ValuePath): string {
  let text = "";
  for (const step of path) text += typeof step === "number" ? `[${step}]` : `${text === "" ? "" : "."}${step}`;
  return text;
}

/** Where the value at `path` (or its key) begins; where the path ends early, the last key or value on the way. */
function offsetOf(root: ParsedNode | null, path: ValuePath, at: "key" | "value"): number {
  let node: Node | null = root;
  let offset = startOf(root) ?? 0;
  for (const [index, step] of path.entries()) {
    const last = index === path.length - 1;
    if (isMap(node)) {
      const pair = pairsOf(node).get(String(step));
      if (pair === undefined) return offset;
      const key = isNode(pair.key) ? startOf(pair.key) : undefined;
      const value: Node | null = isNode(pair.value) ? pair.value : null;
      const emptyValue = isScalar(value) && value.source === "";
      offset = (last && at === "value" && !emptyValue ? startOf(value) : key) ?? key ?? offset;
      node = value;
    } else if (isSeq(node) && typeof step === "number") {
      const item: unknown = node.items[step];
      node = isNode(item) ? item : null;
      offset = startOf(node) ?? offset;
    } else {
      return offset;
    }
  }
  return offset;
}

/** Every second and later key of a mapping that has it already: YAML 1.2 §3.2.1.1. */
function duplicateKeys(document: Document.Parsed): readonly { readonly key: string; readonly offset: number }[] {
  const found: { key: string; offset: number }[] = [];
  visit(document, {
    Map(_, mapping) {
      const seen = new Set<string>();
      for (const pair of mapping.items as YAMLMap["items"]) {
        const key = keyOf(pair);
        if (seen.has(key)) found.push({ key, offset: isNode(pair.key) ? (startOf(pair.key) ?? 0) : 0 });
        seen.add(key);
      }
    },
  });
  return found;
}

type Pairs = ReadonlyMap<string, YAMLMap["items"][number]>;

/** The pairs of a mapping by key, so that a file with thousands of entries and as many problems is still answered at once. */
function pairsOf(mapping: YAMLMap): Pairs {
  let pairs = PAIRS.get(mapping);
  if (pairs === undefined) {
    pairs = new Map(mapping.items.map((pair) => [keyOf(pair), pair]));
    PAIRS.set(mapping, pairs);
  }
  return pairs;
}

const PAIRS = new WeakMap<YAMLMap, Pairs>();

function keyOf({ key }: YAMLMap["items"][number]): string {
  return String(isScalar(key) ? key.value : key);
}

function startOf(node: Node | null | undefined): number | undefined {
  return node?.range?.[0];
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
