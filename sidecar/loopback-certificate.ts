/**
 * The certificate of the loopback listener, made in the pod at each start: a CA that signs one certificate and whose
 * key is forgotten at once, so that whoever trusts it trusts nothing else. Encoded by hand (X.690 DER; RFC 5280,
 * RFC 5480), because node:crypto cannot sign certificates and node-forge knows no elliptic curves; RSA keys would cost
 * most of the time that a start may take.
 */
import { createHash, generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import type { KeyObject } from 'node:crypto'

/** What the certificate is good for: the loopback's name, and those under which in-cluster clients know the API server. */
export const DNS_NAMES: readonly string[] = [
  'localhost',
  'kubernetes',
  'kubernetes.default',
  'kubernetes.default.svc',
  'kubernetes.default.svc.cluster.local',
]
const IP_ADDRESSES = [
  [127, 0, 0, 1],
  [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
]
/** Longer than any pod lives, in milliseconds: ten years. It ends with its key, which is never written down. */
const LIFE_MS = 10 * 365 * 24 * 3600 * 1000
/** How far clocks of clients may be behind, in milliseconds. */
const CLOCK_SKEW_MS = 3600 * 1000
const SERIAL_BYTES = 16
/** First year that `UTCTime` cannot tell (RFC 5280, 4.1.2.5). */
const FIRST_GENERALIZED_YEAR = 2050

const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const
/** Context-specific tags of the structures below. */
const VERSION_TAG = 0xa0
const EXTENSIONS_TAG = 0xa3
const DNS_NAME_TAG = 0x82
const IP_ADDRESS_TAG = 0x87
const KEY_IDENTIFIER_TAG = 0x80

/** Object identifiers, encoded. */
const OID = {
  commonName: '550403',
  ecdsaWithSha256: '2a8648ce3d040302',
  subjectKeyIdentifier: '551d0e',
  keyUsage: '551d0f',
  subjectAltName: '551d11',
  basicConstraints: '551d13',
  authorityKeyIdentifier: '551d23',
  extKeyUsage: '551d25',
  serverAuth: '2b06010505070301',
} as const
/** `keyUsage` bits with their count of unused ones. */
const DIGITAL_SIGNATURE = Buffer.from([7, 0x80])
const KEY_CERT_SIGN = Buffer.from([2, 0x04])

/** A key with its certificate, and the CA that vouches for it; PEM text. */
export interface LoopbackCertificate {
  readonly key: string
  readonly cert: string
  readonly ca: string
}

/** @param now - milliseconds since the epoch */
export function createLoopbackCertificate(now: number): LoopbackCertificate {
  const authority = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const server = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const issuer = { name: 'nestgate loopback CA', key: authority.privateKey }
  const authorityId = keyId(authority.publicKey)
  const ca = certificate(issuer, issuer.name, authority.publicKey, now, [
    extension(OID.basicConstraints, seq(der(TAG.boolean, Buffer.from([0xff])), int(0)), true),
    extension(OID.keyUsage, der(TAG.bitString, KEY_CERT_SIGN), true),
    extension(OID.subjectKeyIdentifier, der(TAG.octetString, authorityId)),
    extension(OID.authorityKeyIdentifier, seq(der(KEY_IDENTIFIER_TAG, authorityId))),
  ])
  const cert = certificate(issuer, 'nestgate-sidecar', server.publicKey, now, [
    extension(OID.basicConstraints, seq(), true),
    extension(OID.keyUsage, der(TAG.bitString, DIGITAL_SIGNATURE), true),
    extension(OID.extKeyUsage, seq(oid(OID.serverAuth))),
    extension(OID.subjectKeyIdentifier, der(TAG.octetString, keyId(server.publicKey))),
    extension(OID.authorityKeyIdentifier, seq(der(KEY_IDENTIFIER_TAG, authorityId))),
    extension(OID.subjectAltName, alternativeNames()),
  ])
  const key = server.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  return { key, cert, ca }
}

function certificate(
  issuer: { readonly name: string; readonly key: KeyObject },
  subject: string,
  publicKey: KeyObject,
  now: number,
  extensions: readonly Buffer[],
): string {
  const algorithm = seq(oid(OID.ecdsaWithSha256))
  const body = seq(
    der(VERSION_TAG, int(2)),
    serialNumber(),
    algorithm,
    distinguishedName(issuer.name),
    seq(time(now - CLOCK_SKEW_MS), time(now + LIFE_MS)),
    distinguishedName(subject),
    publicKey.export({ type: 'spki', format: 'der' }),
    der(EXTENSIONS_TAG, seq(...extensions)),
  )
  const signature = sign('sha256', body, issuer.key)
  return pem(seq(body, algorithm, bits(signature)))
}

function alternativeNames(): Buffer {
  return seq(
    ...DNS_NAMES.map((name) => der(DNS_NAME_TAG, Buffer.from(name, 'latin1'))),
    ...IP_ADDRESSES.map((address) => der(IP_ADDRESS_TAG, Buffer.from(address))),
  )
}

/** SHA-1 of the key itself (RFC 5280, 4.2.1.2, method 1): a name, no protection. */
function keyId(key: KeyObject): Buffer {
  const { x = '', y = '' } = key.export({ format: 'jwk' })
  const point = [Buffer.from([4]), Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')]
  return createHash('sha1').update(Buffer.concat(point)).digest()
}

function extension(id: string, value: Buffer, critical = false): Buffer {
  const mark = critical ? [der(TAG.boolean, Buffer.from([0xff]))] : []
  return seq(oid(id), ...mark, der(TAG.octetString, value))
}

function distinguishedName(commonName: string): Buffer {
  const value = der(TAG.utf8String, Buffer.from(commonName))
  return seq(der(TAG.set, seq(oid(OID.commonName), value)))
}

/** Positive, as RFC 5280 wants it. */
function serialNumber(): Buffer {
  const bytes = randomBytes(SERIAL_BYTES)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40
  return der(TAG.integer, bytes)
}

function time(at: number): Buffer {
  const date = new Date(at)
  const text = date.toISOString().replaceAll(/[-:T]|\.\d+/g, '')
  if (date.getUTCFullYear() < FIRST_GENERALIZED_YEAR)
    return der(TAG.utcTime, Buffer.from(text.slice(2), 'latin1'))
  return der(TAG.generalizedTime, Buffer.from(text, 'latin1'))
}

function oid(hex: string): Buffer {
  return der(TAG.oid, Buffer.from(hex, 'hex'))
}

/** A number below 128. */
function int(value: number): Buffer {
  return der(TAG.integer, Buffer.from([value]))
}

function bits(content: Buffer): Buffer {
  return der(TAG.bitString, Buffer.concat([Buffer.from([0]), content]))
}

function seq(...parts: readonly Buffer[]): Buffer {
  return der(TAG.sequence, Buffer.concat(parts))
}

/** Tag, length, content; lengths up to 65,535. */
function der(tag: number, content: Buffer): Buffer {
  const { length } = content
  const head =
    length < 0x80
      ? [tag, length]
      : length < 0x100
        ? [tag, 0x81, length]
        : [tag, 0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from(head), content])
}

function pem(content: Buffer): string {
  const lines = content.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}
