/**
 * The authorities of an installation, as the Secret `nestgate-ca` has them: the one that signs, at most one that follows it, and those
 * that are trusted still. All of it is one object, so that each change is one compare-and-set. Pure but for the keys that
 * are made.
 *
 * A new authority is cross-signed by the one that signs: servers send that certificate along, so that a pod that was injected
 * when there was only the old one verifies the new one's certificates until the old one ends.
 */
import { z } from 'zod'
import {
  authorityOf,
  BACKDATE_MS,
  crossSign,
  makeAuthority,
  pathLengthOf,
  pemOf,
} from '../certificates.ts'
import type { Authority } from '../certificates.ts'
import { KeepError } from './errors.ts'
import { firstOf, isKeyOf, joinPems, readPems } from './pem.ts'
import type { Certificate } from './pem.ts'

/** Most authorities that are trusted without signing any more; each is a certificate in every `caBundle` and every pod. */
const MAX_RETIRED = 4
/** Most certificates between a server's and the oldest authority. */
const MAX_CROSSES = 4

/** An authority with its key. */
export interface Signing {
  readonly certificate: Certificate
  /** PEM. Never leaves this process but into the Secret. */
  readonly key: string
  /** PEM of certificates that make older authorities vouch for it, nearest first. */
  readonly crosses: readonly string[]
  /** Since when every bundle of the cluster was seen to hold it, in milliseconds since the epoch. */
  readonly trustedSince?: number
}

/** An authority that signs no more. Its key is gone. */
export interface Retired {
  readonly certificate: Certificate
  /** When the last certificate that it signed was seen to be replaced, in milliseconds since the epoch. */
  readonly replacedAt?: number
}

/** See the head of the file. */
export interface Authorities {
  /** Undefined where the Secret was lost: what it signed is trusted still, and `next` will sign. */
  readonly signer?: Signing
  readonly next?: Signing
  readonly retired: readonly Retired[]
}

/** What the Secret's keys hold, decoded. */
export type SecretData = Readonly<Record<string, string>>

/** Keys of the Secret that this file reads and writes. */
export const AUTHORITY_KEYS = [
  'ca.crt',
  'tls.crt',
  'tls.key',
  'next.crt',
  'next.key',
  'state.json',
] as const

const pems = z.array(z.string().max(16_384)).max(MAX_CROSSES)
const moment = z.int().nonnegative()
const stateSchema = z.strictObject({
  version: z.literal(1),
  signer: z.strictObject({ crosses: pems }).optional(),
  next: z.strictObject({ crosses: pems, trustedSince: moment.optional() }).optional(),
  retired: z
    .array(z.strictObject({ certificate: z.string().max(16_384), replacedAt: moment.optional() }))
    .max(MAX_RETIRED),
})

/**
 * Reads the Secret. A certificate with its key and nothing else is an authority that was brought: it signs.
 *
 * @returns undefined where there is none
 * @throws KeepError `broken` where it holds something that is not to be used, and not to be thrown away
 */
export function readAuthorities(data: SecretData): Authorities | undefined {
  if (AUTHORITY_KEYS.every((key) => (data[key] ?? '') === '')) return undefined
  const text = data['state.json'] ?? ''
  const state = stateSchema.safeParse(text === '' ? BROUGHT : parse(text)).data
  if (state === undefined)
    throw broken('state.json cannot be read; a newer version may have written it')
  const signer =
    state.signer === undefined ? undefined : signingOf(data, 'tls', state.signer.crosses)
  const next = state.next === undefined ? undefined : signingOf(data, 'next', state.next.crosses)
  const since = state.next?.trustedSince
  return {
    ...(signer === undefined ? {} : { signer }),
    ...(next === undefined
      ? {}
      : { next: { ...next, ...(since === undefined ? {} : { trustedSince: since }) } }),
    retired: state.retired.map(({ certificate: pem, replacedAt }) => {
      const certificate = firstOf(pem)
      if (certificate === undefined) throw broken('a certificate in state.json cannot be read')
      return { certificate, ...(replacedAt === undefined ? {} : { replacedAt }) }
    }),
  }
}

const BROUGHT: z.infer<typeof stateSchema> = { version: 1, signer: { crosses: [] }, retired: [] }

/** The Secret's content; a key that it must not have any more is empty. */
export function writeAuthorities(authorities: Authorities): SecretData {
  const { signer, next, retired } = authorities
  const state: z.infer<typeof stateSchema> = {
    version: 1,
    ...(signer === undefined ? {} : { signer: { crosses: [...signer.crosses] } }),
    ...(next === undefined
      ? {}
      : {
          next: {
            crosses: [...next.crosses],
            ...(next.trustedSince === undefined ? {} : { trustedSince: next.trustedSince }),
          },
        }),
    retired: retired.map(({ certificate, replacedAt }) => ({
      certificate: certificate.pem,
      ...(replacedAt === undefined ? {} : { replacedAt }),
    })),
  }
  return {
    'ca.crt': bundleOf(authorities),
    'tls.crt': signer?.certificate.pem ?? '',
    'tls.key': signer?.key ?? '',
    'next.crt': next?.certificate.pem ?? '',
    'next.key': next?.key ?? '',
    'state.json': JSON.stringify(state),
  }
}

/** PEM of all that is trusted, the one that signs first. */
export function bundleOf({ signer, next, retired }: Authorities): string {
  const all = [signer?.certificate, next?.certificate, ...retired.map((one) => one.certificate)]
  return joinPems(all.flatMap((one) => (one === undefined ? [] : [one.pem])))
}

/** Whether a text holds all that is trusted and nothing else; the order means nothing. */
export function isBundleOf(text: string, authorities: Authorities): boolean {
  const held = new Set(readPems(text)?.map(({ pem }) => pem))
  const wanted = readPems(bundleOf(authorities)) ?? []
  return held.size === wanted.length && wanted.every(({ pem }) => held.has(pem))
}

/** A new authority. @param days - its life. @param before - the one that it follows, which vouches for it where it can */
export function makeSigning(now: number, days: number, before?: Signing): Signing {
  const made = makeAuthority({ from: now - BACKDATE_MS, to: now + Math.round(days * DAY_MS) })
  const crosses =
    before === undefined || before.certificate.ends <= now || !mayCross(before)
      ? []
      : [crossSign(made.certificate, forgeAuthority(before)), ...validCrosses(before, now)]
  const { cert, key } = pemOf(made)
  return {
    certificate: known(cert),
    key,
    crosses: crosses.slice(0, MAX_CROSSES),
  }
}

const DAY_MS = 86_400_000

/** PEM of the certificates that go with what an authority signs; those that are over are left out. */
export function validCrosses({ crosses }: Signing, now: number): readonly string[] {
  return crosses.filter((pem) => (firstOf(pem)?.ends ?? 0) > now)
}

/** Trusts authorities of others, until what they signed is replaced. */
export function trustToo(found: Authorities, others: readonly Certificate[]): Authorities {
  const more = others.map((certificate) => ({ certificate }))
  return { ...found, retired: [...more, ...found.retired].slice(0, MAX_RETIRED) }
}

/** The one that follows signs from now on; the one before is only trusted, and its key is gone. */
export function promote({ signer, next, retired }: Authorities): Authorities {
  if (next === undefined) throw new KeepError('internal', 'there is no authority to follow')
  const { certificate, key, crosses } = next
  const before = signer === undefined ? [] : [{ certificate: signer.certificate }]
  return {
    signer: { certificate, key, crosses },
    retired: [...before, ...retired].slice(0, MAX_RETIRED),
  }
}

/** For node-forge, which signs. @throws KeepError where the texts are none of it */
export function forgeAuthority({ certificate, key }: Signing): Authority {
  try {
    return authorityOf(certificate.pem, key)
  } catch (error) {
    throw new KeepError('broken', 'the authority’s certificate or key is not of RSA', {
      cause: error,
    })
  }
}

/** An authority that was made for servers alone (path length 0) vouches for no other. */
function mayCross(signing: Signing): boolean {
  return pathLengthOf(forgeAuthority(signing).certificate) !== 0
}

function signingOf(data: SecretData, name: 'tls' | 'next', crosses: readonly string[]): Signing {
  const certificate = firstOf(data[`${name}.crt`] ?? '')
  const key = data[`${name}.key`] ?? ''
  if (certificate === undefined) throw broken(`${name}.crt holds no certificate`)
  if (!certificate.x509.ca) throw broken(`${name}.crt is not the certificate of an authority`)
  if (!isKeyOf(key, certificate)) throw broken(`${name}.key is not the key of ${name}.crt`)
  if (crosses.some((pem) => readPems(pem)?.length !== 1))
    throw broken('a certificate in state.json cannot be read')
  return { certificate, key, crosses }
}

function known(pem: string): Certificate {
  const certificate = firstOf(pem)
  if (certificate === undefined) throw new KeepError('internal', 'a certificate was not made')
  return certificate
}

function broken(what: string): KeepError {
  return new KeepError(
    'broken',
    `${what}; restore the Secret, or remove all its data to have a new authority made`,
  )
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
