import type { OutgoingHttpHeaders } from "node:http2";
import { status } from "@grpc/grpc-js";
import { workloadEndpoint } from "../client/spiffe/endpoint.js";
import { ServerReflectionService as Reflection } from "../workload-api/generated/grpc/reflection/v1/reflection.js";
import { ServerReflectionService as ReflectionV1Alpha } from "../workload-api/generated/grpc/reflection/v1alpha/reflection.js";
import { HealthService } from "../workload-api/generated/health.js";
import { type Check, problemsOf, skip, whyNot } from "./check.js";
import type { Context } from "./context.js";
import { described, statusOf, UNKNOWN_METHOD } from "./probe.js";
import { methodsOfService, reflectedServices, SERVICE } from "./reflected-service.js";
import { isWit, standardCalls, succeed } from "./standard-calls.js";

const WRONG_HEADERS: readonly (readonly [string, OutgoingHttpHeaders])[] = [
  ...["True", "TRUE", "1", "", "false", "yes"].map(
    (value) => [`the header ${JSON.stringify(value)}`, { "workload.spiffe.io": value }] as const,
  ),
  ["the header twice", { "workload.spiffe.io": ["true", "true"] }],
];

/** Which of the standard's methods answer anything but InvalidArgument to wrong headers, of those that succeed with the right one: the positive control. */
async function acceptedWith(
  context: Context,
  wrong: readonly (readonly [string, OutgoingHttpHeaders])[],
): Promise<readonly string[]> {
  const calls = await succeed(await standardCalls(context), context.probe);
  if (calls.length === 0) skip("no call succeeds with the right header");
  const pairs = wrong.flatMap(([what, metadata]) => calls.map((call) => ({ call, what, metadata })));
  const answers = await Promise.all(
    pairs.map(async ({ call, what, metadata }) => ({ call, what, answer: await call.ask(context.probe, metadata) })),
  );
  return problemsOf(answers, ({ call, what, answer }) =>
    statusOf(answer) === status.INVALID_ARGUMENT ? undefined : `${call.name} with ${what} answers ${described(answer)}`,
  );
}

export const endpointChecks: readonly Check[] = [
  {
    id: "EP-2",
    level: "M",
    sentence: "No TLS is required on the socket",
    source: "WE §3.1",
    // A server that demands TLS is found out before any check runs.
    run: async () => [],
  },
  {
    id: "EP-3",
    level: "M",
    sentence: "No client credential of any kind is required",
    source: "WE §5",
    run: async ({ control }) =>
      !control.ok && control.status === status.UNAUTHENTICATED ? [`FetchX509SVID answers ${described(control)}`] : [],
  },
  {
    id: "EP-4",
    level: "M",
    sentence: "Every RPC without the metadata workload.spiffe.io is InvalidArgument",
    source: "WE §3, §6",
    run: (context) => acceptedWith(context, [["no header", {}]]),
  },
  {
    id: "EP-5",
    level: "M",
    sentence: "A header value other than exactly `true`, or a repeated header, is InvalidArgument",
    source: "WE §3; spire pkg/agent/endpoints/middleware.go",
    run: (context) => acceptedWith(context, WRONG_HEADERS),
  },
  {
    id: "EP-6",
    level: "S",
    sentence: "The header rule is for SpiffeWorkloadAPI only; health and reflection do not need it",
    source: "WE §7; spire pkg/agent/endpoints/middleware.go",
    async run({ probe }) {
      const others = [
        { name: "health", answer: await probe.ask(HealthService.check, { service: "" }, { metadata: {} }) },
        ...(await Promise.all(
          [Reflection, ReflectionV1Alpha].map(async ({ serverReflectionInfo }) => ({
            name: `reflection (${serverReflectionInfo.path.split(".")[2]})`,
            answer: await probe.ask(serverReflectionInfo, { host: "", listServices: "" }, { metadata: {} }),
          })),
        )),
      ];
      const offered = others.filter(({ answer }) => statusOf(answer) !== status.UNIMPLEMENTED);
      if (offered.length === 0) skip("neither health nor reflection is offered");
      return problemsOf(offered, ({ name, answer }) =>
        answer.ok ? undefined : `${name} without the header answers ${described(answer)}`,
      );
    },
  },
  {
    id: "EP-7",
    level: "S",
    sentence: "gRPC Server Reflection is offered",
    source: "WE §7",
    async run({ probe }) {
      const services = await reflectedServices(probe);
      if (typeof services === "string") return [services];
      return services.includes(SERVICE) ? [] : [`reflection does not name ${SERVICE}, but ${services.join(", ")}`];
    },
  },
  {
    id: "EP-8",
    level: "M",
    sentence: "SpiffeWorkloadAPI has no methods beside the standard's",
    source: "WE §7",
    async run(context) {
      const methods = await methodsOfService(context.probe);
      const known = (await standardCalls(context)).map(({ name }) => name);
      const extra = methods.filter((method) => !known.includes(method));
      return extra.length === 0 ? [] : [`reflection shows ${extra.join(", ")}`];
    },
  },
  {
    id: "EP-11",
    level: "M",
    sentence: "An unknown RPC is Unimplemented",
    source: "WE App. A, WA §7",
    async run({ probe }) {
      const problems: string[] = [];
      for (const path of [UNKNOWN_METHOD.path, "/NoSuchService/FetchNothing"]) {
        const answer = await probe.ask({ ...UNKNOWN_METHOD, path }, {});
        if (statusOf(answer) !== status.UNIMPLEMENTED) problems.push(`${path} answers ${described(answer)}`);
      }
      return problems;
    },
  },
  {
    id: "EP-13",
    level: "M",
    sentence: "SPIFFE_ENDPOINT_SOCKET is unix:///absolute/path or tcp://IP:PORT and nothing else",
    source: "WE §4",
    async run({ options: { printedAddress } }) {
      if (printedAddress === undefined) skip("SPIFFE_ENDPOINT_SOCKET is not set; the address came from --socket");
      const why = whyNot(() => workloadEndpoint(printedAddress, {}));
      return why === undefined ? [] : [why];
    },
  },
  {
    id: "WR-5",
    level: "M",
    sentence: "The X.509 and JWT profiles are implemented",
    source: "WA §1",
    async run(context) {
      const calls = (await standardCalls(context)).filter(({ name }) => !isWit(name));
      const problems: string[] = [];
      for (const call of calls) {
        const answer = await call.ask(context.probe);
        if (statusOf(answer) === status.UNIMPLEMENTED) problems.push(`${call.name} answers ${described(answer)}`);
      }
      return problems;
    },
  },
];
