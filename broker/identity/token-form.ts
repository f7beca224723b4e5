/**
 * The form that a token must have before its signature is looked at: what of it could be read in two ways, or says that it
 * was made for something else than to sign in, is refused.
 */
import { readStrictJson } from '../../shared/kubernetes/strict-json.ts'
import type { JsonValue } from '../../shared/kubernetes/strict-json.ts'

/**
 * What a token may call itself (RFC 7519, 5.1; RFC 9068, 2.1), in lower case and without `application/`; most ID tokens
 * call themselves nothing. Logout tokens, security events and the like are by the same key, for the same audience
 * (RFC 8725, 3.11).
 */
const TYPES: ReadonlySet<unknown> = new Set([undefined, 'jwt', 'at+jwt'])
const PARTS = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+$/

type JsonObject = Readonly<Record<string, JsonValue>>

/**
 * Whether a token is a signed JWT (JWS compact serialisation) to sign in with. A member that is there twice refuses it:
 * `JSON.parse`, by which jose reads, takes the last one, others take the first, and then the issuer's own components and we
 * could see different subjects.
 */
export function hasSignInForm(token: string): boolean {
  const [, first = '', second = ''] = PARTS.exec(token) ?? []
  const [header, claims] = [objectOf(first), objectOf(second)]
  if (header === undefined || claims === undefined) return false
  const { typ, crit, cty } = header
  if (!TYPES.has(typeof typ === 'string' ? typ.toLowerCase().replace(/^application\//, '') : typ))
    return false
  // extensions that must be understood (RFC 7515, 4.1.11), of which we know none; a token within a token (RFC 7519, 5.2)
  if (crit !== undefined || cty !== undefined) return false
  // a logout token or another security event (RFC 8417, 2.2), also where its header does not say so
  return claims['events'] === undefined
}

function objectOf(part: string): JsonObject | undefined {
  const read = readStrictJson(Buffer.from(part, 'base64url'))
  return 'problem' in read || !isObject(read.value) ? undefined : read.value
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
