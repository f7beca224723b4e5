/**
 * Bodies of self-reviews. They may come as protobuf, in the envelope of Kubernetes (apimachinery, runtime/serializer/protobuf:
 * four magic bytes, then `Unknown{typeMeta=1, raw=2}`); only strings at published field numbers are read from it.
 */
import { parse } from 'yaml'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { SelfReviewKind } from './self-review.ts'

/** Largest body of a review, in bytes; real ones have a few hundred. */
const MAX_REVIEW_BYTES = 64 * 1024
const PROTOBUF_MAGIC = Buffer.from('k8s\0')

/** Field numbers of k8s.io/api/authorization/v1 (generated.proto), the same in v1beta1. A number without fields is a string. */
type Message = Readonly<Partial<Record<number, Field>>>
interface Field {
  readonly name: string
  readonly message?: Message
}
const RESOURCE: Message = {
  1: { name: 'namespace' },
  2: { name: 'verb' },
  3: { name: 'group' },
  4: { name: 'version' },
  5: { name: 'resource' },
  6: { name: 'subresource' },
  7: { name: 'name' },
}
const PATH: Message = { 1: { name: 'path' }, 2: { name: 'verb' } }
const ACCESS_SPEC: Message = {
  1: { name: 'resourceAttributes', message: RESOURCE },
  2: { name: 'nonResourceAttributes', message: PATH },
}
const RULES_SPEC: Message = { 1: { name: 'namespace' } }
const MESSAGES: Readonly<Record<SelfReviewKind, Message>> = {
  access: { 2: { name: 'spec', message: ACCESS_SPEC } },
  rules: { 2: { name: 'spec', message: RULES_SPEC } },
}
const WIRE_VARINT = 0
const WIRE_64 = 1
const WIRE_BYTES = 2
const WIRE_32 = 5

/** The review as a plain value, not checked further. */
export function readReviewBody(
  kind: SelfReviewKind,
  contentType: string,
  body: Buffer,
): { readonly review: unknown } | Refusal {
  if (body.length > MAX_REVIEW_BYTES) return refuse('body_invalid', 'too large for a review')
  const type = contentType.split(';')[0]?.trim().toLowerCase() ?? ''
  try {
    switch (type) {
      case 'application/vnd.kubernetes.protobuf':
        return { review: readEnvelope(kind, body) }
      case 'application/yaml':
        return { review: parse(body.toString(), { maxAliasCount: 0, logLevel: 'silent' }) }
      case '':
      case '*/*':
      case 'application/json':
        return { review: JSON.parse(body.toString()) }
      default:
        return refuse('body_opaque')
    }
  } catch {
    return refuse('body_invalid', 'the review cannot be read')
  }
}

function readEnvelope(kind: SelfReviewKind, body: Buffer): object {
  if (!body.subarray(0, PROTOBUF_MAGIC.length).equals(PROTOBUF_MAGIC)) {
    throw new RangeError('no envelope')
  }
  const envelope: Message = { 2: { name: 'raw', message: MESSAGES[kind] } }
  const { raw } = readMessage(body.subarray(PROTOBUF_MAGIC.length), envelope)
  return typeof raw === 'object' ? raw : {}
}

type Read = Readonly<Partial<Record<string, string | object>>>

/** Of a field that comes twice the last counts, and of messages their fields are merged, as protobuf says. */
function readMessage(bytes: Buffer, message: Message): Read {
  const read: Record<string, string | object> = {}
  let at = 0
  while (at < bytes.length) {
    const key = varint(bytes, at)
    const { start, end } = fieldAt(bytes, key.next, key.value & 7)
    const field = message[key.value >>> 3]
    if (field !== undefined) {
      if ((key.value & 7) !== WIRE_BYTES) throw new RangeError('another wire type')
      const content = bytes.subarray(start, end)
      read[field.name] =
        field.message === undefined
          ? content.toString()
          : { ...asObject(read[field.name]), ...readMessage(content, field.message) }
    }
    at = end
  }
  return read
}

function asObject(value: string | object | undefined): object {
  return typeof value === 'object' ? value : {}
}

function fieldAt(bytes: Buffer, at: number, wire: number): { start: number; end: number } {
  const end = (start: number, length: number): { start: number; end: number } => {
    if (start + length > bytes.length) throw new RangeError('cut off')
    return { start, end: start + length }
  }
  switch (wire) {
    case WIRE_VARINT:
      return end(at, varint(bytes, at).next - at)
    case WIRE_64:
      return end(at, 8)
    case WIRE_32:
      return end(at, 4)
    case WIRE_BYTES: {
      const { value, next } = varint(bytes, at)
      return end(next, value)
    }
    default:
      throw new RangeError('unknown wire type')
  }
}

/** @throws RangeError for what has no end or is above 2^31: nothing here is */
function varint(bytes: Buffer, at: number): { value: number; next: number } {
  let value = 0
  for (let index = 0; index < 10; index += 1) {
    const byte = bytes[at + index]
    if (byte === undefined) throw new RangeError('cut off')
    value += (byte & 0x7f) * 2 ** (7 * index)
    if (byte < 0x80) {
      if (value > 0x7fffffff) throw new RangeError('too large')
      return { value, next: at + index + 1 }
    }
  }
  throw new RangeError('too long')
}
