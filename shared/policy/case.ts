/**
 * An example of a policy, as facts. It is spelled as the request that a client would send, and read by what reads real
 * requests, so that an example cannot say something that no request is.
 */
import { isRecord } from '../config-source.ts'
import type { RequestAttributes } from '../kubernetes/attributes.ts'
import { parseTarget } from '../kubernetes/path.ts'
import { readRequestInfo } from '../kubernetes/request-info.ts'
import { isRefusal, REASONS } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'
import { readAttributes } from '../kubernetes/request-attributes.ts'
import type { Facts, ProcessFacts, SubjectFacts } from './facts.ts'
import type { Case } from './language.ts'

/** What an example leaves out. */
export const CASE_DEFAULTS = {
  cluster: 'example',
  agent: 'example',
  serviceAccount: 'default/default',
  subject: 'example',
  objectName: 'example',
} as const

/** What is wrong with an example. */
export interface CaseProblem {
  readonly problem: string
}

/** Reads an example. */
export function readCase(example: Case): Facts | CaseProblem {
  const sent = requestOf(example)
  if ('problem' in sent) return sent
  const request = readSentRequest(sent)
  if ('problem' in request) return request
  const process = processOf(example)
  const subject = subjectOf(example)
  return { cluster: example.cluster ?? CASE_DEFAULTS.cluster, process, subject, request }
}

/** A request as a client sends it. */
export interface SentRequest {
  readonly method: string
  /** Path and query. */
  readonly target: string
  readonly contentType: string
  readonly body: Buffer
}

/** Reads a request as the broker does. */
export function readSentRequest(sent: SentRequest): RequestAttributes | CaseProblem {
  const target = parseTarget(sent.target)
  if (isRefusal(target)) return { problem: textOf(target) }
  const info = readRequestInfo(sent.method, target)
  if (isRefusal(info)) return { problem: textOf(info) }
  const request = readAttributes({ ...sent, target, info })
  return isRefusal(request) ? { problem: textOf(request) } : request
}

function textOf({ refused, detail }: Refusal): string {
  const { sentence } = REASONS[refused]
  return detail === undefined ? sentence : `${sentence}: ${detail}`
}

const METHODS: Readonly<Record<string, string>> = {
  get: 'GET',
  list: 'GET',
  watch: 'GET',
  create: 'POST',
  update: 'PUT',
  patch: 'PATCH',
  delete: 'DELETE',
  deletecollection: 'DELETE',
  connect: 'POST',
}
/** Verbs on everything of a kind. */
const UNNAMED: ReadonlySet<string> = new Set(['list', 'watch', 'create', 'deletecollection'])

function requestOf(example: Case): SentRequest | CaseProblem {
  if (example.request === undefined) return spellRequest(example)
  if (example.verb !== undefined || example.resource !== undefined)
    return { problem: 'has both a request line and a verb or resource' }
  const [method = '', target = ''] = example.request.split(' ')
  return { method, target, ...bodyOf(example, method, example.body) }
}

/** The request line of a verb and a resource. */
function spellRequest(example: Case): SentRequest | CaseProblem {
  const { verb = '', resource = '' } = example
  const method = METHODS[verb]
  if (resource === '' || method === undefined)
    return { problem: 'names neither a request line nor a verb of requests and a resource' }
  const body = verb === 'create' ? namedBody(example) : example.body
  const sentAs = resource.endsWith('/proxy') ? 'GET' : method
  return {
    method: sentAs,
    target: spellTarget(example, verb, resource),
    ...bodyOf(example, sentAs, body),
  }
}

function spellTarget(example: Case, verb: string, resource: string): string {
  const { namespace = '', objectName = CASE_DEFAULTS.objectName, command = [] } = example
  const [kind = '', ...subresource] = resource.split('/')
  const nameless = UNNAMED.has(verb) && subresource.length === 0
  const place = namespace === '' || kind === 'namespaces' ? [] : ['namespaces', namespace]
  const segments = [...apiOf(example), ...place, kind, ...(nameless ? [] : [objectName])]
  const query = new URLSearchParams(verb === 'watch' ? { watch: '1' } : {})
  for (const word of command) query.append('command', word)
  const search = query.size === 0 ? '' : `?${query.toString()}`
  return `/${[...segments, ...subresource].map(encodeURIComponent).join('/')}${search}`
}

function apiOf({ apiGroup = '' }: Case): readonly string[] {
  return apiGroup === '' ? ['api', 'v1'] : ['apis', apiGroup, 'v1']
}

/** The body of a creation carries the object's name. */
function namedBody({ body, objectName }: Case): unknown {
  if (objectName === undefined || (body !== undefined && !isRecord(body))) return body
  const metadata = isRecord(body?.['metadata']) ? body['metadata'] : {}
  return { ...body, metadata: { name: objectName, ...metadata } }
}

function bodyOf(
  { contentType }: Case,
  method: string,
  body: unknown,
): Pick<SentRequest, 'contentType' | 'body'> {
  const json = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json'
  const text = body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body)
  return { contentType: contentType ?? (text === '' ? '' : json), body: Buffer.from(text) }
}

const PROCESS_KEYS = [
  'agent',
  'ancestors',
  'serviceAccount',
  'executable',
  'sha256',
  'uid',
  'container',
  'image',
  'verdict',
] as const

const CI_KEYS = ['repository', 'ref', 'run'] as const
const SUBJECT_KEYS = ['subject', 'groups', ...CI_KEYS] as const

/** An example with a subject is a direct client's, unless it says something of a process too. */
function processOf(example: Case): ProcessFacts | undefined {
  const direct = SUBJECT_KEYS.some((key) => example[key] !== undefined)
  if (direct && PROCESS_KEYS.every((key) => example[key] === undefined)) return undefined
  const account = example.serviceAccount ?? CASE_DEFAULTS.serviceAccount
  const [namespace = '', serviceAccount = ''] = account.split('/')
  return {
    verdict: example.verdict ?? 'exclusive',
    namespace,
    serviceAccount,
    agent: example.agent ?? CASE_DEFAULTS.agent,
    ancestors: example.ancestors ?? [],
    exe: example.executable,
    sha256: example.sha256,
    uid: example.uid,
    container: example.container,
    image: example.image,
  }
}

function subjectOf(example: Case): SubjectFacts | undefined {
  if (SUBJECT_KEYS.every((key) => example[key] === undefined)) return undefined
  const { subject = CASE_DEFAULTS.subject, groups = [] } = example
  return { name: subject, groups, ...ciOf(example) }
}

/** An example that says something of a pipeline's run is one's. */
function ciOf(example: Case): Pick<SubjectFacts, 'ci'> {
  if (CI_KEYS.every((key) => example[key] === undefined)) return {}
  const { subject: other } = CASE_DEFAULTS
  const { repository = other, ref = other, run = other } = example
  return { ci: { repository, ref, run } }
}
