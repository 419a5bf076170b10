import type { Clock } from "../../platform/clock.js";
import type { PolicyEngine } from "../engine.js";
import type { Entities } from "../entities.js";
import type { PolicyNames } from "../policy-names.js";
import type { PolicyProblem } from "../yaml-file.js";
import type { Scope } from "./scope.js";

/** An engine whose files have been read and found good. */
export interface LoadedEngine {
  readonly name: string;
  /** Hex SHA-256 over its settings and the bytes of its files. */
  readonly digest: string;
  open(use: { readonly clock: Clock }): PolicyEngine;
  /** Whether it is shown that whatever this one permits `old` permitted too, though their files differ (D13). */
  narrows?(old: LoadedEngine): boolean;
}

/** What an engine is loaded with. */
export interface EngineContext {
  readonly names: PolicyNames;
  readonly entities: Entities;
  /** Files are shown relative to this folder. */
  readonly projectDirectory: string;
  /** Compiled policies are kept below; undefined: nowhere. */
  readonly cacheDirectory: string | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly isAsked: Scope;
}

export interface EngineLoad {
  /** Undefined where some problem is an error. */
  readonly engine: LoadedEngine | undefined;
  readonly problems: readonly PolicyProblem[];
}
