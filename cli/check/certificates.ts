/** Whether a server's certificate is one that a client with this authority believes now. Pure; PEM in, a sentence out. */
import { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g
/** Longest chain that is followed. */
const MAX_CHAIN = 8

/** What is checked. */
export interface Served {
  /** The chain as it is served, PEM, the server's own first. */
  readonly certificate: string
  /** The authorities that are believed, PEM. */
  readonly authority: string
  readonly host: string
  /** Milliseconds since the epoch. */
  readonly now: number
}

/** What is wrong, or undefined. */
export function certificateProblem({
  certificate,
  authority,
  host,
  now,
}: Served): string | undefined {
  const chain = parse(certificate)
  const authorities = parse(authority)
  const [leaf] = chain ?? []
  if (chain === undefined || leaf === undefined) return 'its certificate cannot be read'
  if (authorities === undefined || authorities.length === 0) return 'its caBundle cannot be read'
  if (Date.parse(leaf.validTo) <= now) return `its certificate ended on ${dayOf(leaf.validTo)}`
  if (Date.parse(leaf.validFrom) > now) return `its certificate begins on ${dayOf(leaf.validFrom)}`
  if (!isFor(leaf, host)) return `its certificate is not for ${host}`
  const root = rootOf(leaf, chain, authorities)
  if (root === undefined) return 'its certificate is not of the caBundle’s authority'
  if (Date.parse(root.validTo) <= now) return `its authority ended on ${dayOf(root.validTo)}`
  return undefined
}

/** When a certificate (the first of a chain) ends, in milliseconds since the epoch. */
export function expiryOf(pem: string): number {
  const [leaf] = parse(pem) ?? []
  return leaf === undefined ? 0 : Date.parse(leaf.validTo)
}

function isFor(leaf: X509Certificate, host: string): boolean {
  const name = isIP(host) === 0 ? leaf.checkHost(host, { subject: 'never' }) : leaf.checkIP(host)
  return name !== undefined
}

function parse(pem: string): readonly X509Certificate[] | undefined {
  try {
    return (pem.match(PEM_CERTIFICATE) ?? []).map((block) => new X509Certificate(block))
  } catch {
    return undefined
  }
}

function rootOf(
  leaf: X509Certificate,
  chain: readonly X509Certificate[],
  authorities: readonly X509Certificate[],
): X509Certificate | undefined {
  let current = leaf
  for (let step = 0; step < MAX_CHAIN; step += 1) {
    const signer = (one: X509Certificate): boolean =>
      current.checkIssued(one) && current.verify(one.publicKey)
    const root = authorities.find(signer)
    if (root !== undefined) return root
    const next = chain.find((one) => one !== current && signer(one))
    if (next === undefined) return undefined
    current = next
  }
  return undefined
}

function dayOf(text: string): string {
  return new Date(text).toISOString().slice(0, 10)
}
