/**
 * What is to be done next, from what is seen. One write at a time, each of which leaves certificates that those who must can
 * verify, so that a keeper may end between any two of them and another one may go on:
 *
 * 1. there is an authority; before it ends, there is the next one;
 * 2. every bundle (`caBundle` first, then the Secrets' `ca.crt`) holds all that are trusted; only then
 * 3. certificates are signed, by the one that signs;
 * 4. once every bundle was seen to hold the next one, and after the time of settling, that one signs;
 * 5. one that signs no more leaves the bundles when its last certificate is replaced, after the time of settling, or when it is over.
 */
import { issueLeaf, BACKDATE_MS } from '../certificates.ts'
import {
  bundleOf,
  forgeAuthority,
  isBundleOf,
  makeSigning,
  promote,
  readAuthorities,
  trustToo,
  validCrosses,
  writeAuthorities,
} from './authorities.ts'
import type { Authorities, SecretData, Signing } from './authorities.ts'
import type { KeepConfig } from './config.ts'
import type { ConfigurationSeen, SecretSeen } from './objects.ts'
import {
  firstOf,
  hostsOf,
  isKeyOf,
  joinPems,
  plainHost,
  readPems,
  samePems,
  signedBy,
} from './pem.ts'
import type { Certificate } from './pem.ts'

const DAY_MS = 86_400_000
/** Most authorities of others that are trusted on until what they signed is replaced. */
const MAX_ADOPTED = 2

/** The servers that have a certificate. */
export const LEAVES = ['webhook', 'broker'] as const
export type LeafRole = (typeof LEAVES)[number]

/** What was read: the authority last, so that nothing else is older than it; see docs/certificates.md. */
export interface Seen {
  readonly authority: SecretSeen
  /** A server's Secret is missing here where it cannot be read or written, or is not ours. */
  readonly leaves: Readonly<Partial<Record<LeafRole, SecretSeen>>>
  /** Those that can be read and written. */
  readonly configurations: readonly ConfigurationSeen[]
  /** What is missing above. */
  readonly problems: readonly Error[]
}

/** One write. */
export type Step =
  | {
      readonly write: 'secret'
      readonly seen: SecretSeen
      readonly changes: SecretData
      /** For the log. */
      readonly why: string
      /** A certificate that is new with this write. */
      readonly made?: 'authority' | LeafRole
    }
  | {
      readonly write: 'bundle'
      readonly seen: ConfigurationSeen
      readonly bundle: string
      readonly why: string
    }

/** The settings that matter here. */
export type Terms = Pick<KeepConfig, 'validity' | 'dnsNames' | 'settleSeconds'>

/**
 * The next write, or undefined where nothing is to be done.
 *
 * @param now - milliseconds since the epoch
 * @throws KeepError `broken`, see readAuthorities
 */
export function nextStep(seen: Seen, now: number, terms: Terms): Step | undefined {
  const found = readAuthorities(seen.authority.data)
  const change = found === undefined ? begin(seen, now, terms) : prepare(seen, found, now, terms)
  if (change !== undefined) return authorityStep(seen, change)
  if (found === undefined) return undefined
  return spread(seen, found, now, terms) ?? advance(seen, found, now, terms)
}

interface Change {
  readonly authorities: Authorities
  readonly why: string
  readonly made?: 'authority'
}

function authorityStep({ authority }: Seen, { authorities, ...rest }: Change): Step {
  return { write: 'secret', seen: authority, changes: writeAuthorities(authorities), ...rest }
}

/**
 * The first authority. Where servers have certificates already (the Secret of the authority was lost, or they were made by hand), it
 * must be trusted before it signs, and what they have is trusted meanwhile.
 */
function begin(seen: Seen, now: number, { validity }: Terms): Change | undefined {
  // Somebody else's certificates are in use: nothing is to be trusted instead of them.
  if (LEAVES.some((role) => seen.leaves[role] === undefined)) return undefined
  const made = makeSigning(now, validity.authorityDays)
  const inUse = LEAVES.some((role) => usable(seen.leaves[role], now) !== undefined)
  return {
    authorities: inUse
      ? trustToo({ next: made, retired: [] }, served(seen, { retired: [] }, now))
      : { signer: made, retired: [] },
    why: inUse ? 'made an authority beside one that was lost' : 'made the first authority',
    made: 'authority',
  }
}

/** What must be trusted before anything else is done: authorities of what servers have, and the one that follows. */
function prepare(
  seen: Seen,
  found: Authorities,
  now: number,
  { validity }: Terms,
): Change | undefined {
  const foreign = served(seen, found, now)
  if (foreign.length > 0)
    return {
      authorities: trustToo(found, foreign),
      why: 'trusts the authority of a certificate in use',
    }
  const { signer, next } = found
  const due =
    signer === undefined ||
    signer.certificate.ends - now <= validity.authorityRenewBeforeDays * DAY_MS
  if (next !== undefined || !due) return undefined
  const made = makeSigning(now, validity.authorityDays, signer)
  return {
    authorities: { ...found, next: made },
    why: 'made the next authority',
    made: 'authority',
  }
}

/** Authorities, out of the bundles that there are, of certificates in use that none of ours has signed. */
function served(seen: Seen, known: Authorities, now: number): readonly Certificate[] {
  const ours = readPems(bundleOf(known)) ?? []
  const bundles = [
    ...LEAVES.map((role) => seen.leaves[role]?.data['ca.crt'] ?? ''),
    ...seen.configurations.flatMap(({ webhooks }) => webhooks.map(({ caBundle }) => caBundle)),
  ]
  const unknown = LEAVES.flatMap((role) => usable(seen.leaves[role], now) ?? []).filter(
    (leaf) => !ours.some((authority) => signedBy(leaf, authority)),
  )
  const found = (readPems(joinPems(bundles)) ?? []).filter(
    (one) => one.ends > now && unknown.some((leaf) => signedBy(leaf, one)),
  )
  return found.slice(0, MAX_ADOPTED)
}

/** Bundles and certificates that are not what they should be. */
function spread(seen: Seen, found: Authorities, now: number, terms: Terms): Step | undefined {
  // Who calls the webhook trusts what this Secret's certificate comes from, whoever made it.
  const stale =
    seen.leaves.webhook === undefined
      ? undefined
      : seen.configurations.find(({ webhooks }) =>
          webhooks.some(({ caBundle }) => !isBundleOf(caBundle, found)),
        )
  if (stale !== undefined)
    return {
      ...{ write: 'bundle', seen: stale, bundle: bundleOf(found) },
      why: 'wrote what is trusted',
    }
  for (const role of LEAVES) {
    const secret = seen.leaves[role]
    const step = secret === undefined ? undefined : leafStep(role, secret, found, now, terms)
    if (step !== undefined) return step
  }
  return undefined
}

function leafStep(
  role: LeafRole,
  seen: SecretSeen,
  found: Authorities,
  now: number,
  terms: Terms,
): Step | undefined {
  const { data } = seen
  const leaf = usable(seen, now)
  const issuer = issuerFor(found, leaf, now)
  const why =
    issuer === undefined ? undefined : whyNew(leaf, issuer, terms.dnsNames[role], now, terms)
  const bundle = bundleOf(found)
  if (issuer === undefined || why === undefined) {
    const chain =
      leaf === undefined || issuer === undefined
        ? (data['tls.crt'] ?? '')
        : joinPems([leaf.pem, ...validCrosses(issuer, now)])
    if (isBundleOf(data['ca.crt'] ?? '', found) && samePems(data['tls.crt'] ?? '', chain))
      return undefined
    const changes = { 'ca.crt': bundle, 'tls.crt': chain }
    return { write: 'secret', seen, changes, why: 'wrote what is trusted' }
  }
  const validity = {
    from: now - BACKDATE_MS,
    to: now + Math.round(terms.validity.leafDays * DAY_MS),
  }
  const made = issueLeaf(forgeAuthority(issuer), `nestgate-${role}`, terms.dnsNames[role], validity)
  const chain = joinPems([made.cert, ...validCrosses(issuer, now)])
  const changes = { 'ca.crt': bundle, 'tls.crt': chain, 'tls.key': made.key }
  return { write: 'secret', seen, changes, why, made: role }
}

/**
 * Who signs. An authority that is not trusted everywhere yet signs only where there is nothing to lose: where the one before it is
 * gone or over, and the server has nothing that it could show.
 */
function issuerFor(
  { signer, next }: Authorities,
  leaf: Certificate | undefined,
  now: number,
): Signing | undefined {
  if (signer !== undefined && signer.certificate.ends > now) return signer
  return leaf === undefined ? next : undefined
}

/** Why a certificate is to be replaced, or undefined. */
function whyNew(
  leaf: Certificate | undefined,
  issuer: Signing,
  hosts: readonly string[],
  now: number,
  { validity }: Terms,
): string | undefined {
  if (leaf === undefined) return 'signed the first certificate'
  if (!signedBy(leaf, issuer.certificate)) return 'signed by the present authority'
  // Names that are too many go with the next renewal: two versions, each with names of its own, must not take turns.
  const named = hostsOf(leaf)
  if (hosts.some((host) => !named.has(plainHost(host)))) return 'signed for other names'
  const end = Math.min(now + validity.leafDays * DAY_MS, issuer.certificate.ends)
  const due = leaf.ends - now <= validity.renewBeforeDays * DAY_MS
  // Near its authority's end a new certificate would last no longer than this one.
  const gain = ((validity.leafDays - validity.renewBeforeDays) * DAY_MS) / 2
  return due && end - leaf.ends >= gain ? 'renewed before its end' : undefined
}

/** Changes of who signs and who is trusted, all bundles being what they should be. */
function advance(
  seen: Seen,
  found: Authorities,
  now: number,
  { settleSeconds }: Terms,
): Step | undefined {
  const { signer, next, retired } = found
  const settleMs = settleSeconds * 1000
  if (next !== undefined && seen.problems.length === 0) {
    if (next.trustedSince === undefined) {
      const authorities = { ...found, next: { ...next, trustedSince: now } }
      return authorityStep(seen, { authorities, why: 'all trust the next authority' })
    }
    const over = signer !== undefined && signer.certificate.ends <= now
    if (over || now - next.trustedSince >= settleMs)
      return authorityStep(seen, {
        ...{ authorities: promote(found), why: 'the next authority signs from now on' },
      })
  }
  const left = retired
    .filter(
      ({ certificate, replacedAt }) =>
        certificate.ends > now && (replacedAt === undefined || now - replacedAt < settleMs),
    )
    .map((one) =>
      one.replacedAt === undefined && isReplaced(one.certificate, seen)
        ? { ...one, replacedAt: now }
        : one,
    )
  const same = left.length === retired.length && left.every((one, index) => one === retired[index])
  if (same) return undefined
  const gone = left.length < retired.length
  const why = gone
    ? 'trusts an authority no longer'
    : 'the last certificate of an authority is gone'
  return authorityStep(seen, { authorities: { ...found, retired: left }, why })
}

function isReplaced(authority: Certificate, { leaves }: Seen): boolean {
  return LEAVES.every((role) => {
    const secret = leaves[role]
    if (secret === undefined) return false
    const leaf = firstOf(secret.data['tls.crt'] ?? '')
    return leaf === undefined || !signedBy(leaf, authority)
  })
}

/** The certificate of a Secret where a server can use it: with its key, and not over. */
function usable(seen: SecretSeen | undefined, now: number): Certificate | undefined {
  const leaf = firstOf(seen?.data['tls.crt'] ?? '')
  if (leaf === undefined || leaf.ends <= now) return undefined
  return isKeyOf(seen?.data['tls.key'] ?? '', leaf) ? leaf : undefined
}

/** What the metrics tell of: ends of certificates, in milliseconds since the epoch. */
export function endsOf({ authority, leaves }: Seen): ReadonlyMap<string, number> {
  const found = readAuthorities(authority.data)
  const all: readonly (readonly [string, Certificate | undefined])[] = [
    ['authority', found?.signer?.certificate],
    ['next_authority', found?.next?.certificate],
    ...LEAVES.map((role) => [role, firstOf(leaves[role]?.data['tls.crt'] ?? '')] as const),
  ]
  return new Map(all.flatMap(([name, one]) => (one === undefined ? [] : [[name, one.ends]])))
}
