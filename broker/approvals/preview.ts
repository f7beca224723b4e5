/**
 * What a held request would do, for the person who decides on it: worked out by the API server itself, by a dry run of
 * the very same request as the caller, and shown as a difference. A dry run goes only to API groups that
 * kube-apiserver serves itself: an aggregated server that knows no dry run would do the thing. What is secret is
 * hidden before anything is compared (conceal.ts).
 */
import { BUILT_IN_GROUPS } from '../../shared/kubernetes/built-in-groups.ts'
import type { RequestInfo } from '../../shared/kubernetes/request-info.ts'
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import { isConnect } from '../../shared/kubernetes/request-info.ts'
import { maskStatusText } from '../masking/objects/status-text.ts'
import { createAsker } from './as-caller.ts'
import type { Asked, Asker, CallerRequest, Said } from './as-caller.ts'
import { conceal, concealmentOf, withoutHidden } from './conceal.ts'
import type { Concealed, Concealment } from './conceal.ts'
import { arrayAt, isObject, NumberText, objectAt, readJson, readYaml, textAt } from './json-tree.ts'
import type { Json } from './json-tree.ts'
import { bounded, difference, objectText, sessionText, visible } from './preview-text.ts'
import type { Sight, Target } from './target.ts'

/** What is shown of a held request. Text is within `MAX_PREVIEW_BYTES`, and has no control characters. */
export interface Preview {
  /**
   * `diff`: what a dry run would change. `object`: what goes. `session`: what runs. `list`: the objects that
   * go. `sent`: the body itself, where no dry run could be had. `none`: there is nothing to show.
   */
  readonly kind: 'diff' | 'object' | 'session' | 'list' | 'sent' | 'none'
  readonly text: string
  /** What a reader must know about the text, in one sentence; also why there is none. */
  readonly note?: string
}

/** See the head of the file. Nothing rejects but on an empty identity, which is a fault. */
export interface Previews {
  /** @param seen - of the same request, just before */
  preview(
    request: CallerRequest,
    seen: Sight,
  ): Promise<{ readonly preview: Preview; readonly asked: readonly Asked[] }>
}

/** Longest wait for a dry run, in milliseconds: admission webhooks take part in it. */
const DRY_RUN_TIMEOUT_MS = 10_000
/** Longest message of the API server that is shown, in UTF-16 code units. */
const MAX_MESSAGE = 1_000
/** So many objects of a collection are named. */
const MAX_LISTED = 200
/** Metadata alone: no content of theirs comes near the broker. */
const NAMES_ONLY = 'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1'

/** Of the groups that kube-apiserver serves itself, those that store nothing: of all others `dryRun` is known since 1.13. */
const REVIEW_GROUPS: ReadonlySet<string> = new Set([
  'authentication.k8s.io',
  'authorization.k8s.io',
])
/** Subresources that keep to a dry run; token requests, which would hand out a token, are not among them. */
const DRY_RUN_SUBRESOURCES: ReadonlySet<string> = new Set([
  '',
  'approval',
  'ephemeralcontainers',
  'resize',
  'scale',
  'status',
])

function isDryRunKnown({ apiGroup, subresource }: RequestInfo): boolean {
  if (!BUILT_IN_GROUPS.has(apiGroup) || REVIEW_GROUPS.has(apiGroup)) return false
  return DRY_RUN_SUBRESOURCES.has(subresource)
}
const DRY_RUN_VERBS: ReadonlySet<string> = new Set(['create', 'update', 'patch'])

/** @param now - milliseconds since the epoch */
export function createPreviews({ now }: { readonly now: () => number }): Previews {
  return {
    async preview(request, seen) {
      const asker = createAsker(request, now)
      return { preview: await previewOf(asker, request, seen), asked: asker.asked }
    },
  }
}

function previewOf(asker: Asker, request: CallerRequest, seen: Sight): Preview | Promise<Preview> {
  const { attributes } = request
  const { info, parameters } = attributes
  if (parameters.dryRun) return nothing('the request is a dry run: nothing is stored')
  if (isConnect(info)) {
    return { kind: 'session', text: sessionText(attributes, seen.object) }
  }
  if (info.verb === 'delete' || info.subresource === 'eviction') return goes(request, seen)
  if (info.verb === 'deletecollection') return listOf(asker, request)
  if (info.subresource === 'token') return nothing('the answer is a token, which is not shown')
  if (!DRY_RUN_VERBS.has(info.verb)) return nothing('the request only reads')
  return canDryRun(attributes)
    ? changes(asker, request, seen)
    : sent(request, 'no dry run: this API may not know what that is')
}

function canDryRun({ info }: RequestAttributes): boolean {
  if (!isDryRunKnown(info)) {
    return false
  }
  return !(info.apiGroup === '' && info.resource === 'bindings')
}

function nothing(note: string): Preview {
  return { kind: 'none', text: '', note }
}

/** A deletion: what is there now, for the API server's dry run would say no more. */
function goes(request: CallerRequest, { target, object }: Sight): Preview {
  if (object !== undefined) {
    const { shown } = conceal(object, { ...concealmentFor(request), withStatus: false })
    return { kind: 'object', text: objectText(shown) }
  }
  if (target !== undefined && 'unreadable' in target) return nothing(target.unreadable)
  return nothing('there is no object of this name')
}

/** A dry run, and what it would change. */
async function changes(asker: Asker, request: CallerRequest, seen: Sight): Promise<Preview> {
  const { attributes, contentType, body, method } = request
  const before = await current(asker, attributes, seen)
  const said = await asker.ask({
    purpose: 'preview',
    method,
    path: `${attributes.path}?${dryRunQuery(request.query)}`,
    body,
    ...(contentType === '' ? {} : { contentType }),
    timeoutMs: DRY_RUN_TIMEOUT_MS,
  })
  if ('silent' in said) return sent(request, `no dry run: ${said.silent}`)
  const { status, json } = said
  if (status >= 400) return sent(request, refusalNote(request, before, said))
  if (!isObject(json)) return sent(request, 'no dry run: its answer is no object')
  return shownDiff(request, before, json, seen.target)
}

function shownDiff(
  request: CallerRequest,
  before: Json | undefined,
  after: Json,
  target: Target | undefined,
): Preview {
  const how = concealmentFor(request)
  const whole = (note: string): Preview => ({
    kind: 'object',
    text: objectText(conceal(after, how).shown),
    note: `${note}: this is the object after the request`,
  })
  if (target !== undefined && 'unreadable' in target)
    return whole('the caller may not read the object as it is')
  // some subresources cannot be read, and what is above them has another form
  if (before !== undefined && textAt(before, 'kind') !== textAt(after, 'kind')) {
    return whole('the object as it is has another form')
  }
  const old = before === undefined ? undefined : conceal(withReplicas(before), how)
  const young = conceal(
    withReplicas(after),
    old === undefined ? how : { ...how, before: old.places },
  )
  const { form, text } = difference(old?.shown, young.shown)
  if (form === 'places') {
    return { kind: 'diff', text, note: 'too much to show it all: these are the places that change' }
  }
  return text === ''
    ? { kind: 'diff', text, note: 'the dry run changed nothing' }
    : { kind: 'diff', text }
}

/** A Scale says nothing of replicas where there are none (autoscaling/v1, omitempty): for a reader that is the point. */
function withReplicas(object: Json): Json {
  if (!isObject(object) || textAt(object, 'kind') !== 'Scale') return object
  return { ...object, spec: { replicas: new NumberText('0'), ...objectAt(object, 'spec') } }
}

/** The object before: as it was seen, or for a subresource in the form that the subresource has. */
async function current(
  asker: Asker,
  attributes: RequestAttributes,
  { object }: Sight,
): Promise<Json | undefined> {
  if (attributes.info.subresource === '' || object === undefined) return object
  const { path } = attributes
  const said = await asker.ask({ purpose: 'preview', method: 'GET', path })
  return 'status' in said && said.status === 200 && isObject(said.json) ? said.json : object
}

/** The query with `dryRun=All` in place of any other; the rest as it is. */
export function dryRunQuery(query: string): string {
  const kept = query
    .split('&')
    .filter((pair) => pair !== '' && !/^dryRun(?:=|$)/.test(decoded(pair)))
  return [...kept, 'dryRun=All'].join('&')
}

function decoded(pair: string): string {
  try {
    return decodeURIComponent(pair)
  } catch {
    return pair
  }
}

/** What the API server said against it; of Secrets only the fields, for its words may quote values. */
function refusalNote(
  request: CallerRequest,
  before: Json | undefined,
  { status, json }: Extract<Said, { status: number }>,
): string {
  const reason = textAt(json, 'reason')
  const head = `the API server would refuse it: ${status}${reason === '' ? '' : ` ${reason}`}`
  const how = concealmentFor(request)
  const fields = arrayAt(objectAt(json, 'details'), 'causes')
    .map((cause) => textAt(cause, 'field'))
    .filter((field) => field !== '')
  const about = how.secret || how.fields?.some(({ group }) => group === how.group) === true
  const message = textAt(json, 'message')
  const said = how.secret ? fields.join(', ') : maskStatusText(messageText(message), about)
  if (said === '') return visible(head)
  const places = [before, bodyOf(request)].flatMap((value): Concealed['places'][] =>
    value === undefined ? [] : [conceal(value, how).places],
  )
  return visible(`${head}: ${withoutHidden(said, places)}`).slice(0, MAX_MESSAGE)
}

function concealmentFor({ attributes, masking }: CallerRequest): Concealment {
  return concealmentOf(attributes, masking)
}

/** Without the piece of the body that decoders quote in their errors. */
function messageText(message: string): string {
  return message.split(/, error found in #|\|\.\.\.|, bigger context/)[0] ?? ''
}

/** The body as it was sent, where the API server did not say what it would make of it. */
function sent(request: CallerRequest, note: string): Preview {
  const body = bodyOf(request)
  if (body === undefined) return nothing(note)
  const { shown } = conceal(body, concealmentFor(request))
  return { kind: 'sent', text: objectText(shown), note }
}

function bodyOf({ contentType, body }: CallerRequest): Json | undefined {
  if (body.length === 0 || /protobuf|cbor/.test(contentType)) return undefined
  const text = body.toString()
  // YAML is asked for by name; the API server takes a body of no type for JSON
  return readJson(text) ?? (contentType.includes('yaml') ? readYaml(text) : undefined)
}

/** The objects that a deletion of many reaches now, by name. */
async function listOf(asker: Asker, { attributes, query }: CallerRequest): Promise<Preview> {
  const selectors = query
    .split('&')
    .filter((pair) => /^(?:labelSelector|fieldSelector)=/.test(decoded(pair)))
  const path = `${attributes.path}?${[...selectors, `limit=${MAX_LISTED}`].join('&')}`
  const said = await asker.ask({ purpose: 'preview', method: 'GET', path, accept: NAMES_ONLY })
  if ('silent' in said) return nothing(`the objects are not known: ${said.silent}`)
  if (said.status !== 200) return nothing(`the objects are not known: status ${said.status}`)
  const items = arrayAt(said.json, 'items').map((item) => {
    const metadata = objectAt(item, 'metadata')
    const namespace = textAt(metadata, 'namespace')
    return `${namespace === '' ? '' : `${namespace}/`}${textAt(metadata, 'name')}`
  })
  const more = textAt(objectAt(said.json, 'metadata'), 'continue') !== ''
  const count = more ? `more than ${items.length}` : String(items.length)
  return {
    kind: 'list',
    text: bounded(visible(items.join('\n'))),
    note: `${count} objects would go, as it is now`,
  }
}
