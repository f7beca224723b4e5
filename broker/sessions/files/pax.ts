/** Records of pax headers: `LENGTH KEY=VALUE\n`, the length in decimal and of the whole record. */

/** Keys and values; an empty value takes back what a global header says. */
export type PaxRecords = ReadonlyMap<string, string>

/** Keys that say nothing of the content, and whose values a reader of the manifest needs not. */
const KNOWN =
  /^(?:path|linkpath|size|mtime|atime|ctime|uid|gid|uname|gname|charset|hdrcharset|GNU\.sparse\.[a-z]+|(?:SCHILY|LIBARCHIVE)\.(?:[a-z]+time|dev|ino|nlink|devmajor|devminor|fflags))$/

const BLANK = 0x20
const LINE_FEED = 0x0a
/** Digits of the length of a record. */
const MAX_LENGTH_DIGITS = 10

/** @returns undefined where the bytes are no such records */
export function parsePax(bytes: Buffer): PaxRecords | undefined {
  const records = new Map<string, string>()
  let at = 0
  while (at < bytes.length) {
    const blank = bytes.indexOf(BLANK, at)
    if (blank === -1 || blank - at > MAX_LENGTH_DIGITS) return undefined
    const digits = bytes.toString('latin1', at, blank)
    const end = at + Number(digits)
    if (!/^[1-9]\d*$/.test(digits) || end <= blank || end > bytes.length) return undefined
    if (bytes[end - 1] !== LINE_FEED) return undefined
    const record = bytes.toString('utf8', blank + 1, end - 1)
    const equals = record.indexOf('=')
    if (equals < 1) return undefined
    records.set(record.slice(0, equals), record.slice(equals + 1))
    at = end
  }
  return records
}

/** Whether the records are of the usual keys only, so that they hide nothing that the manifest does not say. */
export function isUsual(records: PaxRecords): boolean {
  return [...records.keys()].every((key) => KNOWN.test(key))
}

/** The size that the records state. @returns undefined where they state none, -1 where it is no number */
export function sizeOf(records: PaxRecords): number | undefined {
  const stated = records.get('size')
  if (stated === undefined || stated === '') return undefined
  const size = /^\d{1,16}$/.test(stated) ? Number(stated) : -1
  return Number.isSafeInteger(size) ? size : -1
}
