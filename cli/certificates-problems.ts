/** What is wrong with the certificates of an installation, from their texts alone: pure, for `nestgate check`. */
import { hostsOf, isKeyOf, plainHost, readPems, signedBy } from './keep/pem.ts'
import type { Certificate } from './keep/pem.ts'

const DAY_MS = 86_400_000
/** Days that should be left to a server's certificate: half of what `certificates keep` renews before its end. */
const WARN_LEAF_DAYS = 15
/** Days that should be left to an authority that signs: fewer than the next one needs to be known to all pods. */
const WARN_AUTHORITY_DAYS = 90
/** Longest chain that is followed. */
const MAX_DEPTH = 8

/**
 * `unreadable`: no certificate, or something else; `over`, `not_yet`: outside its time; `ends_soon`; `names`: not for the name that it
 * is called by; `key`: not its key; `untrusted`: who must trust it does not.
 */
export type CertificateProblemCode =
  'unreadable' | 'over' | 'not_yet' | 'ends_soon' | 'names' | 'key' | 'untrusted'

/** One thing that is wrong. */
export interface CertificateProblem {
  readonly code: CertificateProblemCode
  /** Whether it fails now; otherwise it will. */
  readonly severity: 'error' | 'warning'
  /** What is wrong, on one line, with nothing secret in it. */
  readonly text: string
  /** Whole days until the certificate in question ends, down; negative when it is over. */
  readonly daysLeft?: number
}

/** What is looked at; all certificates PEM. */
export interface CertificateTexts {
  /** What it is called in the problems, as `webhook`. */
  readonly name: string
  /** A server's certificate and its chain: `tls.crt`. */
  readonly chain: string
  /** Its key, where it is known. */
  readonly key?: string
  /** What those who call it trust, by name: `caBundle` of a configuration, `ca.crt`, the broker CA of a pod. */
  readonly trusted: Readonly<Record<string, string>>
  /** The names by which it is called. */
  readonly hosts?: readonly string[]
}

/** Limits, in days. */
export interface CertificateLimits {
  /** See {@link WARN_LEAF_DAYS}, the default. */
  readonly leafDays?: number
  /** See {@link WARN_AUTHORITY_DAYS}, the default. */
  readonly authorityDays?: number
}

/**
 * All that is wrong, or will be soon.
 *
 * @param now - milliseconds since the epoch
 * @returns nothing where all is well
 */
export function certificateProblems(
  texts: CertificateTexts,
  now: number,
  limits: CertificateLimits = {},
): readonly CertificateProblem[] {
  const { name, chain, key, trusted, hosts = [] } = texts
  const [leaf, ...between] = readPems(chain) ?? []
  if (leaf === undefined)
    return [problem('unreadable', `${name} has no certificate that can be read`)]
  const found: CertificateProblem[] = timeProblems(
    `the certificate of ${name}`,
    leaf,
    now,
    limits.leafDays ?? WARN_LEAF_DAYS,
  )
  if (key !== undefined && !isKeyOf(key, leaf))
    found.push(problem('key', `the key of ${name} is not that of its certificate`))
  const named = hostsOf(leaf)
  for (const host of hosts.filter((one) => !named.has(plainHost(one))))
    found.push(problem('names', `the certificate of ${name} is not for ${host}`))
  for (const [who, bundle] of Object.entries(trusted))
    found.push(...trustProblems(who, name, [leaf, between], bundle, now, limits))
  return found
}

function trustProblems(
  who: string,
  name: string,
  [leaf, between]: readonly [Certificate, readonly Certificate[]],
  bundle: string,
  now: number,
  { authorityDays = WARN_AUTHORITY_DAYS }: CertificateLimits,
): readonly CertificateProblem[] {
  const roots = readPems(bundle)
  if (roots === undefined || roots.length === 0)
    return [problem('unreadable', `${who} has no authority that can be read`)]
  const usable = roots.filter((root) => isDuring(root, now))
  const anchors = anchorsOf(leaf, between, usable, now)
  if (anchors.length === 0)
    return [problem('untrusted', `${who} does not trust the certificate of ${name}`)]
  // The others may end: one is enough.
  const last = anchors.reduce((one, other) => (other.ends > one.ends ? other : one))
  return timeProblems(`the last authority by which ${who} trusts ${name}`, last, now, authorityDays)
}

/** The authorities of `roots` that a certificate leads to, over others that go with it. */
function anchorsOf(
  from: Certificate,
  between: readonly Certificate[],
  roots: readonly Certificate[],
  now: number,
  depth = 0,
): readonly Certificate[] {
  if (depth > MAX_DEPTH) return []
  const direct = roots.filter((root) => root.x509.ca && signedBy(from, root))
  const further = between.filter(
    (one) => one !== from && one.x509.ca && isDuring(one, now) && signedBy(from, one),
  )
  const rest = between.filter((one) => !further.includes(one))
  return [...direct, ...further.flatMap((one) => anchorsOf(one, rest, roots, now, depth + 1))]
}

function timeProblems(
  what: string,
  certificate: Certificate,
  now: number,
  warnDays: number,
): CertificateProblem[] {
  const daysLeft = Math.floor((certificate.ends - now) / DAY_MS)
  const day = new Date(certificate.ends).toISOString().slice(0, 10)
  if (certificate.ends <= now)
    return [{ ...problem('over', `${what} has been over since ${day}`), daysLeft }]
  if (certificate.x509.validFromDate.getTime() > now)
    return [{ ...problem('not_yet', `${what} is not good yet`), daysLeft }]
  if (daysLeft >= warnDays) return []
  const text = `${what} ends on ${day}, in ${daysLeft} days`
  return [{ code: 'ends_soon', severity: 'warning', text, daysLeft }]
}

function isDuring({ x509, ends }: Certificate, now: number): boolean {
  return x509.validFromDate.getTime() <= now && now < ends
}

function problem(code: CertificateProblemCode, text: string): CertificateProblem {
  return { code, severity: 'error', text }
}
