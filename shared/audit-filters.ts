/** The conditions that one can ask ledger entries by: names in the API, options of `nestgate`, and what each compares with. */

/** One condition. */
export interface AuditFilter {
  /** Query parameter of `/v1/audit/…`. */
  readonly name: string
  /** Option of `nestgate audit` and `nestgate export`, without dashes. */
  readonly option: string
  readonly text: string
}

/** All of them; broker/audit/query.ts says which values each takes, and a test keeps the two equal. */
export const AUDIT_FILTERS = [
  { name: 'since', option: 'since', text: 'not before this time (RFC 3339)' },
  { name: 'until', option: 'until', text: 'before this time (RFC 3339)' },
  { name: 'kind', option: 'kind', text: 'intent, outcome, refusal, approval, session or system' },
  { name: 'event', option: 'event', text: 'what happened to the broker itself: audit_read' },
  { name: 'cluster', option: 'cluster', text: 'name of the cluster' },
  { name: 'requestId', option: 'request', text: 'id of the request: all that is known of it' },
  { name: 'subject', option: 'subject', text: 'Kubernetes user or person' },
  { name: 'agent', option: 'agent', text: 'name of the process itself' },
  { name: 'ancestor', option: 'ancestor', text: 'name of any process above it' },
  { name: 'process', option: 'process', text: 'name of the process itself, or of any above it' },
  { name: 'podUid', option: 'pod-uid', text: 'uid of the pod' },
  { name: 'exe', option: 'exe', text: 'path of the executable' },
  { name: 'verb', option: 'verb', text: 'Kubernetes verb, or connect for what opens a session' },
  { name: 'action', option: 'action', text: 'what the request comes to: exec, scale-to-zero' },
  { name: 'resource', option: 'resource', text: 'resource, with subresource: pods/exec' },
  { name: 'namespace', option: 'namespace', text: 'namespace of the object' },
  { name: 'name', option: 'name', text: 'name of the object' },
  { name: 'effect', option: 'effect', text: 'allow, hold or deny' },
  { name: 'reason', option: 'reason', text: 'reason code of a refusal, or of how a request ended' },
  { name: 'rule', option: 'rule', text: 'id of a rule that decided' },
  { name: 'reviewer', option: 'reviewer', text: 'person who decided' },
  { name: 'status', option: 'status', text: 'HTTP status of the answer' },
] as const satisfies readonly AuditFilter[]

/** Formats of `GET /v1/audit/export`; only `jsonl` is evidence. */
export const EXPORT_FORMATS = ['jsonl', 'csv', 'kubernetes', 'ocsf'] as const

/** See {@link EXPORT_FORMATS}. */
export type ExportFormat = (typeof EXPORT_FORMATS)[number]
