/** Secrets that are none, put together while the tests run so that no scanner of the repository takes them for some. */

/** The dashes of PEM lines. */
export const DASHES = '-'.repeat(5)

const LETTERS = 'aB3dE5gH7jK9mN2pQ4rS6tU8vW1xY0zC'

/** So many characters that look drawn at random, of letters of both cases and digits. */
export function characters(length: number, alphabet = LETTERS): string {
  return Array.from({ length }, (_, at) => alphabet[(at * 7 + 3) % alphabet.length]).join('')
}

/** So many hexadecimal digits. */
export function hex(length: number): string {
  return characters(length, '0123456789abcdef')
}

/** Base64 of so many bytes. */
export function base64(bytes: number): string {
  return Buffer.from(Array.from({ length: bytes }, (_, at) => (at * 37 + 11) & 0xff)).toString(
    'base64',
  )
}

/** A token in JOSE form. */
export function jwt(claims = 200): string {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  return [
    part({ alg: 'RS256', kid: 'key-1' }),
    part({ sub: 'system:serviceaccount:a:b', pad: 'x'.repeat(claims) }),
    Buffer.from(base64(48), 'base64').toString('base64url'),
  ].join('.')
}

/** A key in PEM form. */
export function pem(label = 'RSA PRIVATE KEY', lines = 6, newline = '\n'): string {
  const body = Array.from({ length: lines }, () => base64(48))
  return [`${DASHES}BEGIN ${label}${DASHES}`, ...body, `${DASHES}END ${label}${DASHES}`, ''].join(
    newline,
  )
}
