import { z } from "zod";
import { argv, text } from "./schema-text.js";
import { checkPath, checkVariableName } from "./values.js";

/** The part of an identity's entry that is about what `agentid run` starts, and how. */

const paths = (description: string, examples: readonly string[]) =>
  z
    .array(text(checkPath))
    .meta({ description, examples: [[...examples]] })
    .optional();

const sandbox = z
  .strictObject({
    read: paths(
      "Files and folders that it may read beside the project and the system; relative to the project. What holds credentials stays hidden.",
      ["/opt/models"],
    ),
    write: paths(
      "Folders and files that it may change; relative to the project. A folder that holds `agentid.yaml`, `agentid.lock`, the policies or `.agentid/` is refused.",
      ["out"],
    ),
  })
  .meta({ description: "What it sees and changes of the file system." });

const launchCommand = z
  .strictObject({
    command: argv.meta({ description: "The program and its arguments.", examples: [["python3", "agents/billing.py"]] }),
    cwd: text(checkPath, {
      description: "Working directory, relative to the project.",
      default: ".",
      examples: ["agents"],
    }).optional(),
    keepEnv: z
      .array(text(checkVariableName))
      .meta({
        description:
          "Environment variables that the agent keeps although they load code (`NODE_OPTIONS`, `PYTHONPATH` …) or look like secrets. All other such variables are removed.",
        examples: [["OPENAI_API_KEY"]],
      })
      .optional(),
    children: z
      .boolean()
      .meta({
        description:
          "Processes that descend from the launched one have the identity too, with the evidence `parent`: every tool and every shell that the agent starts.",
        default: false,
      })
      .optional(),
    instances: z
      .boolean()
      .meta({
        description:
          "`agentid run NAME --instance X` gives the identity `NAME/X` (`auto` for a new name). A rule that names NAME is not about its instances: `NAME/*` is.",
        default: false,
      })
      .optional(),
    subagents: z
      .array(z.string())
      .meta({
        description:
          "Identities that the agent may launch with `agentid run`. A sub-agent is permitted only what each agent above it is permitted too. Not from inside a sandbox.",
        examples: [["agents/research"]],
      })
      .optional(),
    sandbox: z
      .union([z.boolean(), sandbox])
      .meta({
        description:
          "It runs in a sandbox or not at all: no network but the relay, no other sockets, no credentials, nothing writable but what is named. A launch without `agentid run --sandbox` is refused.",
        default: false,
        examples: [true, { write: ["out"] }],
      })
      .optional(),
  })
  .meta({ description: "The command in full form." });

export const launch = z.union([argv, launchCommand]).meta({
  description:
    "Only a process started by `agentid run NAME -- CMD…` with exactly this command, and with the files that `agentid.lock` pins, has the identity.",
  examples: [["python3", "agents/billing.py"]],
});
