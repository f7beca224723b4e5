/** Identifiers of requests: one per request that reaches the broker, the join key of ledger, cluster audit and replies. */
import { randomBytes } from 'node:crypto'

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/**
 * A new UUIDv7 (RFC 9562, section 5.7): sortable by time of making, 74 random bits.
 *
 * @param nowMs - milliseconds since the epoch
 */
export function newRequestId(nowMs: number): string {
  const bytes = randomBytes(16)
  bytes.writeUIntBE(nowMs, 0, 6)
  bytes[6] = 0x70 | ((bytes[6] ?? 0) & 0x0f)
  bytes[8] = 0x80 | ((bytes[8] ?? 0) & 0x3f)
  const hex = bytes.toString('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}

/** Whether `text` has the form of a request id; says nothing about whether such a request exists. */
export function isRequestId(text: string): boolean {
  return UUID.test(text)
}
