/** What `nestgate connect` is asked for, checked: every problem at once, and nothing that could name one of the cluster's own. */
import { X509Certificate } from 'node:crypto'
import { z } from 'zod'

/** Oldest and newest Kubernetes that files are made for, as the number after `1.`. */
export const OLDEST_MINOR = 20
export const NEWEST_MINOR = 40

/** The two ways to a cluster (docs/decisions/0006). */
export const MODES = ['issuer', 'impersonation'] as const
/** Largest number of names of one kind; more belong into rules of the operator's own. */
const MAX_NAMES = 200

const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
/** Visible ASCII and inner spaces: what a header carries as it is (broker/credentials/impersonation.ts has the same). */
const HEADER_SAFE = /^[\x21-\x7e](?:[\x20-\x7e]{0,251}[\x21-\x7e])?$/
const PEM = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g

const label = z.string().regex(LABEL, 'expected a DNS label')
/** Users and groups: none of the cluster's own, none of ours, and no pattern, which RBAC would take for a name or for everything. */
const outsider = z
  .string()
  .regex(HEADER_SAFE, 'expected visible ASCII, at most 253 characters')
  .refine(
    (name) => !/^(system|nestgate):/i.test(name),
    'names of system: and nestgate: are not given',
  )
  .refine((name) => !name.includes('*'), 'expected a name, not a pattern')
/** Scheme, host and port, and nothing else. */
const origin = z
  .string()
  .refine(
    (value) => /^https:\/\/[^/?#@\s]+\/?$/.test(value) && URL.canParse(value),
    'expected https:// with host and port, and nothing else',
  )
  .transform((value) => value.replace(/\/$/, ''))
const version = z
  .string()
  .regex(/^1\.\d{2}$/, 'expected 1.NN')
  .transform((value) => Number(value.slice(2)))
  .refine(
    (minor) => minor >= OLDEST_MINOR && minor <= NEWEST_MINOR,
    `expected 1.${OLDEST_MINOR} to 1.${NEWEST_MINOR}`,
  )
const certificates = z
  .string()
  .transform((text) => (text.match(PEM) ?? []).map((pem) => pem.replaceAll('\r\n', '\n')))
  .refine((pems) => pems.length > 0 && pems.every(isCertificate), 'expected PEM certificates')
  .transform((pems) => `${pems.join('\n')}\n`)

const schema = z
  .strictObject({
    cluster: label,
    mode: z.enum(MODES, 'expected issuer or impersonation'),
    kubernetesVersion: version,
    brokerUrl: origin,
    brokerCa: certificates,
    server: origin.optional(),
    ca: certificates.optional(),
    namespaces: z.array(label).max(MAX_NAMES),
    users: z.array(outsider).max(MAX_NAMES),
    groups: z.array(outsider).max(MAX_NAMES),
  })
  .refine(
    ({ mode, namespaces, users, groups }) =>
      mode === 'impersonation' || namespaces.length + users.length + groups.length === 0,
    'namespaces, users and groups are of mode impersonation: in mode issuer nobody is impersonated',
  )
  .refine(
    ({ mode, namespaces, users }) => mode === 'issuer' || namespaces.length + users.length > 0,
    'mode impersonation needs namespaces or users: the broker may be nobody else',
  )

/** As the options gave it; certificates as PEM text. */
export type ConnectRequest = z.input<typeof schema>
/** Checked; `kubernetesVersion` is the number after `1.`, addresses have no trailing slash. */
export type ConnectInputs = Readonly<z.output<typeof schema>>

/** Checks a request. @returns the inputs, or one line for each problem */
export function readInputs(
  request: ConnectRequest,
): ConnectInputs | { readonly problems: readonly string[] } {
  const read = schema.safeParse(request)
  if (read.success) return read.data
  return {
    problems: read.error.issues.map(({ path, message }) =>
      path.length === 0 ? message : `${path.join('.')}: ${message}`,
    ),
  }
}

function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).raw.length > 0
  } catch {
    return false
  }
}
