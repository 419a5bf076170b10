import { inheritedState } from "../platform/inherited-state.js";

/*
 * The first program inside a sandbox, and the only one of ours: goes through the door and becomes the agent. As in `run.ts`, nothing that touches Node's
 * streams is loaded before the inherited state is read.
 */
const initialState = inheritedState();
const { enterSandbox } = await import("./enter-sandbox.js");
await enterSandbox(process.argv[2] ?? "", initialState);
