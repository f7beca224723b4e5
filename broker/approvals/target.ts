/**
 * What a held request acts on: looked at when it is held, and again before it is released, so that what was
 * approved is what it meets (broker.md 6.2). Pods are told apart by uid, objects that are written also by their
 * content. Between the second look and the request itself a short time is left that only the API server could close.
 */
import { createHash } from 'node:crypto'
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import { isConnect } from '../../shared/kubernetes/request-info.ts'
import type { RequestInfo } from '../../shared/kubernetes/request-info.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { createAsker } from './as-caller.ts'
import type { Asked, Asker, CallerRequest, Purpose, Said } from './as-caller.ts'
import { canonicalText, isObject, objectAt, textAt } from './json-tree.ts'
import type { JsonObject } from './json-tree.ts'

/** What a request acts on, as it is stored with the held request (`targetSchema` of shared/wire.ts). */
export type Target =
  | TargetObject
  /** There is no object of that name. */
  | { readonly absent: true }
  /** Why the caller cannot read it. */
  | { readonly unreadable: string }

/** An object that is there. */
export interface TargetObject {
  readonly uid: string
  readonly resourceVersion: string
  /** Over the object as far as its owner writes it; hex. */
  readonly contentSha256: string
}

/** A look at a target. */
export interface Sight {
  /** Undefined where a request acts on no single object, or on none whose name is known. */
  readonly target: Target | undefined
  /** The object itself, for the preview. Not to be stored: nothing in it is masked. */
  readonly object?: JsonObject
}

/** See the head of the file. Nothing rejects but on an empty identity, which is a fault. */
export interface Targets {
  /** Looks at the target, as the caller. `target_unreadable` when the API server gives no answer. */
  snapshot(
    request: CallerRequest,
  ): Promise<{ readonly seen: Sight | Refusal; readonly asked: readonly Asked[] }>
  /** Whether the target is still what was seen: undefined, or `approval_target_changed`, or `target_unreadable`. */
  check(
    request: CallerRequest,
    snapshot: Target | undefined,
  ): Promise<{ readonly refusal: Refusal | undefined; readonly asked: readonly Asked[] }>
}

/** @param now - milliseconds since the epoch */
export function createTargets({ now }: { readonly now: () => number }): Targets {
  return {
    async snapshot(request) {
      const asker = createAsker(request, now)
      const seen = await look(asker, request.attributes, 'snapshot')
      return { seen, asked: asker.asked }
    },
    async check(request, snapshot) {
      if (snapshot === undefined) return { refusal: undefined, asked: [] }
      const asker = createAsker(request, now)
      const seen = await look(asker, request.attributes, 'recheck')
      const refusal = isRefusal(seen)
        ? seen
        : compareTargets(request.attributes, snapshot, seen.target)
      return { refusal, asked: asker.asked }
    },
  }
}

async function look(
  asker: Asker,
  attributes: RequestAttributes,
  purpose: Purpose,
): Promise<Sight | Refusal> {
  const path = objectPath(attributes)
  if (path === undefined) return { target: undefined }
  const said = await asker.ask({ purpose, method: 'GET', path })
  return sightOf(said, attributes)
}

function sightOf(said: Said, { info }: RequestAttributes): Sight | Refusal {
  if ('silent' in said) return refuse('target_unreadable', said.silent)
  const { status, json } = said
  if (status === 404) return { target: { absent: true } }
  if (status === 403) {
    return { target: { unreadable: 'the caller may not read it (403)' } }
  }
  if (status === 405) {
    return { target: { unreadable: 'the resource cannot be read (405)' } }
  }
  if (status !== 200) return refuse('target_unreadable', `status ${status}`)
  if (!isObject(json)) return refuse('target_unreadable', 'the answer is no object')
  const metadata = objectAt(json, 'metadata')
  return {
    target: {
      uid: textAt(metadata, 'uid'),
      resourceVersion: textAt(metadata, 'resourceVersion'),
      contentSha256: contentSha256(json, info.subresource === 'status'),
    },
    object: json,
  }
}

/**
 * SHA-256 over an object without what changes by itself: resourceVersion and managedFields, and the status
 * unless the request is about that.
 */
export function contentSha256(object: JsonObject, withStatus: boolean): string {
  const content = {
    ...without(object, withStatus ? [] : ['status']),
    metadata: without(objectAt(object, 'metadata'), ['managedFields', 'resourceVersion']),
  }
  return createHash('sha256').update(canonicalText(content)).digest('hex')
}

function without(object: JsonObject, keys: readonly string[]): JsonObject {
  return Object.fromEntries(Object.entries(object).filter(([key]) => !keys.includes(key)))
}

/** Compares what is there now with what was seen when the request was held. */
export function compareTargets(
  { info }: RequestAttributes,
  before: Target | undefined,
  now: Target | undefined,
): Refusal | undefined {
  if (before === undefined || now === undefined) return undefined
  if ('unreadable' in before) {
    if ('unreadable' in now) return undefined
    return refuse('approval_target_changed', 'the caller could not read it, and now can')
  }
  if ('unreadable' in now) return refuse('target_unreadable', now.unreadable)
  if ('absent' in before) {
    if ('absent' in now) return undefined
    return refuse('approval_target_changed', 'there was no object of this name, and now is one')
  }
  if ('absent' in now) return refuse('approval_target_changed', 'it was deleted')
  return compareObjects(info, before, now)
}

function compareObjects(
  info: RequestInfo,
  before: TargetObject,
  now: TargetObject,
): Refusal | undefined {
  if (before.uid !== now.uid) {
    return refuse('approval_target_changed', 'it is another object of the same name')
  }
  const identityCounts = isConnect(info) || info.verb === 'get'
  if (identityCounts && before.uid !== '') return undefined
  if (before.resourceVersion !== '' && before.resourceVersion === now.resourceVersion) {
    return undefined
  }
  if (before.contentSha256 === now.contentSha256) return undefined
  const versions = `resourceVersion ${before.resourceVersion} → ${now.resourceVersion}`
  return refuse('approval_target_changed', `it has changed since, ${versions}`)
}

/** apimachinery, pkg/api/validation/path: a name that may stand in a path. */
const PATH_NAME = /^(?!\.{1,2}$)[^/%\p{Cc}]{1,253}$/u
const MANY: ReadonlySet<string> = new Set(['list', 'watch', 'deletecollection'])
/** Requests to these are questions; nothing is stored. */
const QUESTIONS: ReadonlySet<string> = new Set(['authentication.k8s.io', 'authorization.k8s.io'])

/** Path of the one object that a request acts on, of a subresource's the object above it; undefined where there is none. */
export function objectPath(attributes: RequestAttributes): string | undefined {
  const { info } = attributes
  if (!info.isResourceRequest || MANY.has(info.verb) || QUESTIONS.has(info.apiGroup)) {
    return undefined
  }
  const name = targetName(attributes)
  if (!PATH_NAME.test(name)) return undefined
  const core = info.apiGroup === ''
  // a binding carries the name of its pod
  const resource = core && info.resource === 'bindings' ? 'pods' : info.resource
  const inNamespace = info.namespace !== '' && !(core && resource === 'namespaces')
  const segments = [
    ...(core ? ['api'] : ['apis', info.apiGroup]),
    info.apiVersion,
    ...(inNamespace ? ['namespaces', info.namespace] : []),
    resource,
    name,
  ]
  return `/${segments.map(encodeURIComponent).join('/')}`
}

function targetName({ info, objectName }: RequestAttributes): string {
  if (info.subresource === 'proxy' || info.verb === 'proxy') return proxiedName(info.name)
  return info.name === '' && info.verb === 'create' ? objectName : info.name
}

/** Names in `…/NAME/proxy` may be `name:port` or `scheme:name:port` (apimachinery, SplitSchemeNamePort). */
function proxiedName(name: string): string {
  const parts = name.split(':')
  return (parts.length === 3 ? parts[1] : parts[0]) ?? ''
}
