// What an integrator would write with the types that openapi-typescript makes; it only has to be right by them.
import type { components, paths } from "./mxfleet";

type Schemas = components["schemas"];

export const request: Schemas["JobRequest"] = {
  operation: "queue.purge",
  target: { instances: ["mx1/postfix"] },
  params: { match: "from:news@bulk.example", mode: "quarantine", keep: "7d", max_messages: 1000 },
  reason: "newsletter loop",
};

// @ts-expect-error: a change without a reason
export const without: Schemas["QueuePurgeRequest"] = { operation: "queue.purge", target: {}, params: { match: "ALL" } };

export function told(run: Schemas["Run"]): string {
  if (run.drift !== null) return `${run.drift.gone} gone, ${run.drift.new} new`;
  if (run.result === null) return run.error?.code ?? run.state;
  switch (run.operation) {
    case "queue.list":
      return run.result.entries.map((entry) => entry.queue_id).join(" ");
    case "queue.purge":
      return `${run.result.done} of ${run.result.asked}, ${run.result.messages.results[0]?.outcome ?? ""}`;
    case "message.trace":
      return run.result.rows.map((row) => row.status).join(" ");
    default:
      // @ts-expect-error: not every result has entries
      return run.result.entries;
  }
}

export function planned(plan: Schemas["Plan"]): number {
  return plan.instances.reduce((sum, part) => sum + part.counts.messages, 0);
}

export type Made = paths["/api/v1/jobs/"]["post"]["responses"][202]["content"]["application/json"]["state"];
