/** The OpenAPI 3.1 document of the broker's own API, made of {@link OPERATIONS} and nothing else. */
import { z } from 'zod'
import { AUDIT_FILTERS } from '../../../shared/audit-filters.ts'
import { isRecord } from '../../../shared/config.ts'
import { NAMED, OPERATIONS, problemSchema } from './operations.ts'
import type { Answer, Operation } from './operation.ts'

type Json = Readonly<Record<string, unknown>>

const OPENAPI_VERSION = '3.1.0'
/** Version of the API: the first part of its paths. */
const API_VERSION = '1'

const registry = z.registry<{ id: string }>()
for (const [id, schema] of Object.entries(NAMED)) registry.add(schema, { id })

/** What path parameters are. */
const PATH_PARAMETERS: Readonly<Record<string, { readonly text: string; readonly schema: Json }>> =
  {
    id: {
      text: 'id of the request or session, or of the campaign',
      schema: { type: 'string', maxLength: 64 },
    },
    item: { text: 'id of the item in its campaign', schema: { type: 'string', maxLength: 64 } },
    sha256: {
      text: 'SHA-256 of the body, hex',
      schema: { type: 'string', pattern: '^[0-9a-f]{64}$' },
    },
    name: { text: 'name of the cluster', schema: { type: 'string', maxLength: 63 } },
    path: {
      text: 'path of a tile or bundle, with its slashes: `0/x001/234`',
      schema: { type: 'string' },
    },
    seq: { text: 'number of the entry', schema: { type: 'integer', minimum: 0 } },
  }
/** What query parameters are, beside the conditions on entries. */
const QUERY_TEXTS: ReadonlyMap<string, string> = new Map([
  ...AUDIT_FILTERS.map(({ name, text }) => [name, text] as const),
  ['limit', 'at most this many'],
  ['cursor', '`next` of the page before'],
  ['after', 'only entries with a higher number; else those that are written from now on'],
  ['format', '`jsonl` is evidence, the others are views'],
  ['from', 'first entry; of `jsonl` the checkpoint at or below it'],
  ['to', 'the entry after the last one; of `jsonl` the checkpoint at or above it'],
  ['state', 'states, separated by commas'],
  ['listItems.state', 'only items that are decided, or not'],
  ['mine', 'only what the caller may decide on'],
  ['review', 'only break-glass requests whose review is so'],
  ['exportEvents.after', 'of a `jsonl` that broke off: the last entry that came'],
  ['showConsistency.from', 'size of a tree that one knows'],
  ['listSessions.kind', 'kind of session'],
  ['grepSessions.kind', 'kind of session'],
  ['listSessions.state', 'only sessions of this state'],
  ['grepSessions.state', 'only sessions of this state'],
  ['grepSessions.cursor', '`more` of the search before'],
  ['followSession.from', 'byte at which an event begins; those before it are left out'],
  [
    'followSession.format',
    '`events`: as recorded; `asciicast`: lines of an asciicast, and details',
  ],
  ['text', 'what to look for, letter by letter'],
  ['ignoreCase', '`true`: capital or not'],
  ['wait', 'how long to wait for a change, in seconds'],
])

/** Makes the document. It is the same for every broker of this version. */
export function openApiDocument(): Json {
  const paths: Record<string, Record<string, Json>> = {}
  for (const operation of OPERATIONS) {
    const path = `/v${API_VERSION}${operation.path}`
    paths[path] = { ...paths[path], [operation.method]: operationObject(operation) }
  }
  return {
    openapi: OPENAPI_VERSION,
    info: {
      title: 'Nestgate broker',
      version: API_VERSION,
      description: 'See docs/api.md. Refusals have one of the codes of docs/errors.md.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    paths,
    components: {
      schemas: namedSchemas(),
      responses: {
        Problem: {
          description: 'Refused',
          content: { 'application/problem+json': { schema: schemaOf(problemSchema) } },
        },
      },
      securitySchemes: {
        person: bearer('Token of `nestgate token new`, or ID token of a configured issuer'),
        sidecar: bearer('Projected service-account token of the pod'),
        apiServer: bearer('Token that `nestgate connect` gave the cluster’s API server'),
      },
    },
  }
}

function bearer(description: string): Json {
  return { type: 'http', scheme: 'bearer', description }
}

function operationObject(operation: Operation): Json {
  const { id, tag, summary, caller, body, answer } = operation
  const isPerson = typeof caller === 'object'
  const scheme = isPerson ? 'person' : caller
  return {
    ...{ operationId: id, tags: [tag], summary },
    ...(isPerson ? { description: `Roles: ${caller.join(', ')}.` } : {}),
    security: scheme === 'anybody' ? [] : [{ [scheme]: [] }],
    parameters: parametersOf(operation),
    ...(body === undefined
      ? {}
      : { requestBody: { required: true, content: json(schemaOf(body, 'input')) } }),
    responses: {
      200: answerObject(answer),
      '4XX': { $ref: '#/components/responses/Problem' },
      '5XX': { $ref: '#/components/responses/Problem' },
    },
  }
}

function parametersOf({ id, path, query, headers = {} }: Operation): readonly Json[] {
  const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name = '']) => name)
  const inPath = names.map((name) => ({
    ...{ name, in: 'path', required: true },
    ...{ description: PATH_PARAMETERS[name]?.text, schema: PATH_PARAMETERS[name]?.schema },
  }))
  const inQuery = Object.entries(query?.shape ?? {}).map(([name, schema]) => ({
    ...{ name, in: 'query', required: !z.safeParse(z.looseObject({ [name]: schema }), {}).success },
    ...{
      description: QUERY_TEXTS.get(`${id}.${name}`) ?? QUERY_TEXTS.get(name) ?? name,
      schema: schemaOf(schema, 'input'),
    },
  }))
  const inHeaders = Object.entries(headers).map(([name, description]) => ({
    ...{ name, in: 'header', required: false, description, schema: { type: 'string' } },
  }))
  return [...inPath, ...inQuery, ...inHeaders]
}

function answerObject(answer: Answer): Json {
  if ('json' in answer) return { description: 'Done', content: json(schemaOf(answer.json)) }
  if ('events' in answer) {
    const events: Record<string, Json> = {}
    for (const [name, schema] of Object.entries(answer.events)) events[name] = schemaOf(schema)
    // OpenAPI 3.1 has no words for the events of a stream
    const content = { schema: { type: 'string' }, 'x-nestgate-events': events }
    return {
      description: 'Server-sent events; `data` of each is JSON',
      content: { 'text/event-stream': content },
    }
  }
  const text = { schema: { type: 'string' } }
  return {
    description: 'Done',
    content: Object.fromEntries(answer.texts.map((type) => [type, text])),
  }
}

function json(schema: Json): Json {
  return { 'application/json': { schema } }
}

/** A schema by its name, or in full where it has none. */
function schemaOf(schema: z.ZodType, io: 'input' | 'output' = 'output'): Json {
  const named = registry.get(schema)
  if (named !== undefined) return { $ref: reference(named.id) }
  return plain(z.toJSONSchema(schema, { io, unrepresentable: 'any' }), io)
}

function namedSchemas(): Json {
  const { schemas } = z.toJSONSchema(registry, { uri: reference, unrepresentable: 'any' })
  return Object.fromEntries(
    Object.entries(schemas).map(([id, schema]) => [id, plain(schema, 'output')]),
  )
}

function reference(id: string): string {
  return `#/components/schemas/${id}`
}

/** Without what belongs to a document of its own; and answers may have more fields in a later version, as clients must expect. */
function plain(schema: object, io: 'input' | 'output'): Json {
  const clean = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(clean)
    if (!isRecord(value)) return value
    const isOpen = io === 'output' && value['additionalProperties'] === false
    const kept = Object.entries(value).filter(
      ([key]) => key !== '$schema' && key !== '$id' && !(isOpen && key === 'additionalProperties'),
    )
    return Object.fromEntries(kept.map(([key, part]) => [key, clean(part)]))
  }
  const cleaned = clean(schema)
  return isRecord(cleaned) ? cleaned : {}
}
