/**
 * Arrays as PostgreSQL reads them in binary (its `array_recv`): many rows are bound as one value for each column, and
 * nothing has to be escaped.
 */
import { Buffer } from 'node:buffer'
import { Fault } from '../../../shared/errors.ts'
import type { Value } from '../steps.ts'

/** Types of columns. */
export type ColumnType = 'bigint' | 'bytea' | 'text'

/** Object ids of the types, fixed in PostgreSQL. */
const OIDS: Readonly<Record<ColumnType, number>> = { bigint: 20, bytea: 17, text: 25 }
const HEADER_BYTES = 20
const LENGTH_BYTES = 4
const BIGINT_BYTES = 8
const NULL_LENGTH = -1

/** @throws {@link Fault} `store_failed` for a value of another type */
export function encodeArray(type: ColumnType, values: readonly Value[]): Buffer {
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeInt32BE(1, 0)
  header.writeInt32BE(values.includes(null) ? 1 : 0, 4)
  header.writeInt32BE(OIDS[type], 8)
  header.writeInt32BE(values.length, 12)
  // arrays begin at 1
  header.writeInt32BE(1, 16)
  const parts: Uint8Array[] = [header]
  for (const value of values) {
    const length = Buffer.alloc(LENGTH_BYTES)
    parts.push(length)
    if (value === null) {
      length.writeInt32BE(NULL_LENGTH)
      continue
    }
    const bytes = encode(type, value)
    length.writeInt32BE(bytes.length)
    parts.push(bytes)
  }
  return Buffer.concat(parts)
}

function encode(type: ColumnType, value: Exclude<Value, null>): Uint8Array {
  if (type === 'bigint' && typeof value === 'number') {
    const bytes = Buffer.alloc(BIGINT_BYTES)
    bytes.writeBigInt64BE(BigInt(value))
    return bytes
  }
  if (type === 'bytea' && value instanceof Uint8Array) return value
  if (type === 'text' && typeof value === 'string') return Buffer.from(toText(value), 'utf8')
  throw new Fault('store_failed', `a column of type ${type} is given a ${typeof value}`)
}

/** PostgreSQL has no U+0000 in texts: its picture stands for it, so that no caller's text can stop a transaction. */
export function toText(value: string): string {
  return value.includes('\u0000') ? value.replaceAll('\u0000', '\u2400') : value
}
