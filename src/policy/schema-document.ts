import { z } from "zod";
import { entitiesFileSchema } from "./entities.js";
import { ruleFileSchema } from "./rule-file-schema.js";

/** The JSON Schemas (2020-12) with which editors complete and check rule files and `entities.yaml`, by file name. */
export function policyJsonSchemas(): Readonly<Record<string, string>> {
  const text = (schema: z.ZodType) => `${JSON.stringify(z.toJSONSchema(schema, { io: "input" }), undefined, 2)}\n`;
  return { "policy.schema.json": text(ruleFileSchema), "entities.schema.json": text(entitiesFileSchema) };
}
