/**
 * The request target, read one way only. Proxies, routers and URL parsers differ about `//`, `.`, `%2f`,
 * `\` and `;`; what they could read differently is refused here, before anything is decided on it
 * (research: CVE class "parser disagreement"; the reading itself follows kube-apiserver's requestinfo.go).
 */
import { refuse } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'

/** Longest request target that is read, in bytes; Node's own header limit is 16 KiB for everything. */
export const MAX_TARGET_BYTES = 8192

/** A request target with one meaning. */
export interface RequestTarget {
  /** The path as it is forwarded: canonical percent-encoding, no trailing slash but for `/`. */
  readonly path: string
  /** Decoded path segments; none is empty. */
  readonly segments: readonly string[]
  /** The raw query without `?`; every pair in it decodes one way. */
  readonly query: string
  /** Decoded pairs in the order sent. */
  readonly parameters: readonly (readonly [string, string])[]
}

/** Characters that stand for themselves in a path segment (RFC 3986 pchar, without `;`). */
const PLAIN = /^[A-Za-z0-9\-._~!$&'()*+,=:@]$/
/** What may stand in a segment as sent: pchar with percent escapes. */
const SEGMENT_TEXT = /^[A-Za-z0-9\-._~!$&'()*+,=:@%]*$/
/** In a query these stand for themselves or are read alike by Go and by WHATWG parsers. */
const QUERY_TEXT = /^[A-Za-z0-9\-._~!$'()*,:@/?%+=&[\]{}"|^`<>]*$/

/**
 * Reads a raw request target (`req.url` of Node, never passed through `URL`).
 *
 * Refused with `path_ambiguous`: empty, `.` and `..` segments, control characters, backslash, `;`, broken or
 * non-UTF-8 percent escapes, encoded slash, backslash, percent or NUL; `#`, `;` and broken escapes in the
 * query. A trailing slash is dropped, because kube-apiserver drops it too.
 */
export function parseTarget(raw: string): RequestTarget | Refusal {
  if (raw.length > MAX_TARGET_BYTES)
    return refuse('path_ambiguous', `longer than ${MAX_TARGET_BYTES} bytes`)
  if (!raw.startsWith('/')) return refuse('path_ambiguous', 'does not begin with a slash')
  const mark = raw.indexOf('?')
  const rawPath = mark === -1 ? raw : raw.slice(0, mark)
  const query = mark === -1 ? '' : raw.slice(mark + 1)
  const segments = parseSegments(rawPath)
  if ('refused' in segments) return segments
  const parameters = parseQuery(query)
  if ('refused' in parameters) return parameters
  return { path: `/${segments.map(encodeSegment).join('/')}`, segments, query, parameters }
}

function parseSegments(rawPath: string): readonly string[] | Refusal {
  if (rawPath === '/') return []
  const trimmed = rawPath.endsWith('/') ? rawPath.slice(1, -1) : rawPath.slice(1)
  const segments: string[] = []
  for (const part of trimmed.split('/')) {
    if (!SEGMENT_TEXT.test(part))
      return refuse('path_ambiguous', 'a character is not percent-encoded')
    const decoded = decode(part)
    if (decoded === undefined) return refuse('path_ambiguous', 'a percent escape is broken')
    const problem = segmentProblem(decoded)
    if (problem !== undefined) return refuse('path_ambiguous', problem)
    segments.push(decoded)
  }
  return segments
}

function segmentProblem(segment: string): string | undefined {
  if (segment === '') return 'a segment is empty'
  if (segment === '.' || segment === '..') return 'a segment is "." or ".."'
  // eslint-disable-next-line no-control-regex -- control characters are what is looked for
  if (/[\u0000-\u001f\u007f]/.test(segment)) return 'a segment has a control character'
  if (/[/\\;%]/.test(segment))
    return 'a segment has an encoded slash, a backslash, a semicolon or a percent sign'
  return undefined
}

/** Percent-decoding to UTF-8; undefined where an escape is broken or the result is not UTF-8. */
function decode(part: string): string | undefined {
  try {
    return decodeURIComponent(part)
  } catch {
    return undefined
  }
}

function encodeSegment(segment: string): string {
  let encoded = ''
  for (const char of segment) encoded += PLAIN.test(char) ? char : encodeURIComponent(char)
  return encoded
}

function parseQuery(query: string): readonly (readonly [string, string])[] | Refusal {
  if (query === '') return []
  if (!QUERY_TEXT.test(query))
    return refuse('path_ambiguous', 'the query has a character that parsers read differently')
  const parameters: (readonly [string, string])[] = []
  for (const pair of query.split('&')) {
    if (pair === '') continue
    const at = pair.indexOf('=')
    const key = decode((at === -1 ? pair : pair.slice(0, at)).replaceAll('+', '%20'))
    const value = decode((at === -1 ? '' : pair.slice(at + 1)).replaceAll('+', '%20'))
    if (key === undefined || value === undefined)
      return refuse('path_ambiguous', 'a percent escape in the query is broken')
    parameters.push([key, value])
  }
  return parameters
}
