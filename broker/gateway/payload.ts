/**
 * The body of a request beside its intent, where a rule obliges (`capture`). What is stored is the object as it was
 * read, in the canonical form of json-tree.ts, with what is secret masked: by kind and name as for reviewers
 * (approvals/conceal.ts), and more widely than for them, because it is kept for as long as the ledger. What cannot be
 * read cannot be masked, and is not stored: no content is better than a secret.
 */
import { createHash } from 'node:crypto'
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import { isConnect } from '../../shared/kubernetes/request-info.ts'
import type { Masking } from '../../shared/policy/masking.ts'
import { conceal, concealmentOf, HIDDEN } from '../approvals/conceal.ts'
import { embeddedJson } from '../approvals/conceal-text.ts'
import {
  canonicalText,
  isArray,
  isObject,
  NumberText,
  readJson,
  readYaml,
  textAt,
} from '../approvals/json-tree.ts'
import type { Json } from '../approvals/json-tree.ts'
import type { IntentEntry, PayloadRecord } from '../ledger/entry.ts'
import { SECRET_FIELDS, VALUE_MEMBERS, secretMember } from '../masking/objects/names.ts'
import type { Payload } from '../store/store.ts'
import type { Exchange } from './exchange.ts'
import { intentOf } from './intent.ts'

/** An intent, and what is stored beside it in the same transaction. */
export interface Evidence {
  readonly intent: IntentEntry
  readonly payloads: readonly Payload[]
}

/** The intent of a request that was decided on, with its body where a rule wants it captured. */
export function evidenceOf(exchange: Exchange): Evidence {
  const intent = intentOf(exchange)
  const { capture } = exchange.decision.obligations
  if (capture === undefined || exchange.body.bytes.length === 0) return { intent, payloads: [] }
  const { record, payloads } = captureBody(
    exchange.attributes,
    exchange.body.bytes,
    capture.maxBytes,
    exchange.decision.obligations.mask,
  )
  return { intent: { ...intent, payload: record }, payloads }
}

/**
 * What is stored of a body, and what its entry says of that.
 *
 * @param maxBytes - of what is stored, the mark of a cut apart
 * @param masking - as policy has it; left out, no fields beside those of the standard profile are hidden
 */
export function captureBody(
  attributes: Pick<RequestAttributes, 'info' | 'body'>,
  body: Buffer,
  maxBytes: number,
  masking?: Masking,
): { readonly record: PayloadRecord; readonly payloads: readonly Payload[] } {
  const without = (omitted: 'opaque' | 'proxied'): ReturnType<typeof captureBody> => ({
    record: { omitted },
    payloads: [],
  })
  const { info } = attributes
  // whatever stands behind a proxy has names of its own for what is secret
  if (isConnect(info) || !info.isResourceRequest) return without('proxied')
  const text = body.toString()
  // the API server's own reading decides which it is; here is read what it has let through
  const read = attributes.body.state === 'read' ? (readJson(text) ?? readYaml(text)) : undefined
  if (read === undefined) return without('opaque')
  const how = { ...concealmentOf(attributes, masking), whole: true }
  const { shown } = conceal(maskMore(read, how.secret), how)
  const { content, truncated } = cut(canonicalText(shown), maxBytes)
  const sha256 = createHash('sha256').update(content).digest('hex')
  return {
    record: { sha256, bytes: content.length, truncated },
    payloads: [{ sha256, content }],
  }
}

/**
 * Values that are secret wherever they stand: private keys (RFC 7468), signed tokens (RFC 7519), passwords in URLs (RFC 3986, 3.2.1).
 * Bounded, and begun where a word begins: no text takes longer than its length.
 */
const SECRET_VALUE =
  /-----BEGIN [A-Z ]{0,40}PRIVATE KEY|(?<![\w-])eyJ[\w-]{8,4096}\.[\w-]{8,4096}\.|(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,31}:\/\/[^\s/?#@:]{0,256}:[^\s/?#@]{1,1024}@/i

/** @param secrets - the request is about Secrets: a list of them does not say so of its items */
function maskMore(node: Json, secrets: boolean, depth = 0): Json {
  if (typeof node === 'string') return maskInText(node, depth)
  if (isArray(node)) return node.map((item) => maskMore(item, secrets, depth))
  if (!isObject(node)) return node
  // of a JSON patch the path has the key
  const target = textAt(node, 'path').split('/').at(-1) ?? ''
  const members = Object.entries(node).map(([key, member]): [string, Json] => {
    if (secrets && SECRET_FIELDS.has(key)) return [key, masked(member)]
    const named = secretMember(key) || (key === 'value' && secretMember(target))
    if (named && isPlain(member)) return [key, masked(member)]
    return [key, maskMore(named ? withoutValues(member) : member, secrets, depth)]
  })
  return Object.fromEntries(members)
}

/** Texts that are JSON are looked into so deep; what is JSON still is hidden by {@link conceal}. */
const MAX_EMBEDDED = 6

function maskInText(text: string, depth: number): string {
  const inner = depth < MAX_EMBEDDED ? embeddedJson(text) : undefined
  if (inner === undefined) return SECRET_VALUE.test(text) ? HIDDEN : text
  const shown = canonicalText(maskMore(inner, false, depth + 1))
  return shown === canonicalText(inner) ? text : shown
}

/** Of `password: {value: …}` the value. */
function withoutValues(member: Json): Json {
  if (!isObject(member)) return member
  const entries = Object.entries(member).map(([key, value]): [string, Json] => [
    key,
    VALUE_MEMBERS.has(key) && isPlain(value) ? masked(value) : value,
  ])
  return Object.fromEntries(entries)
}

/** A text or number, or a list of such; what has keys of its own is looked at by these. */
function isPlain(member: Json): boolean {
  if (isArray(member)) return member.every((item) => !isObject(item) && !isArray(item))
  return typeof member === 'string' || member instanceof NumberText
}

/** The same keys without any value. */
function masked(member: Json): Json {
  if (member === null) return null
  if (isArray(member)) return member.map(masked)
  if (!isObject(member)) return HIDDEN
  return Object.fromEntries(Object.entries(member).map(([key, value]) => [key, masked(value)]))
}

/** At most so many bytes of a text, whole characters, with a mark behind them where it was cut. */
function cut(
  text: string,
  maxBytes: number,
): { readonly content: Uint8Array; readonly truncated: boolean } {
  const bytes = Buffer.from(text)
  if (bytes.length <= maxBytes) return { content: bytes, truncated: false }
  // as if more were to come: so a character that was cut in two is left out
  const kept = new TextDecoder().decode(bytes.subarray(0, maxBytes), { stream: true })
  const left = bytes.length - Buffer.byteLength(kept)
  return { content: Buffer.from(`${kept}…[cut: ${left} bytes]`), truncated: true }
}
