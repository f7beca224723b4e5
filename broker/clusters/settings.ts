/** What the broker is told of a cluster: in its own configuration, or by the API. */
import { join } from 'node:path'
import { z } from 'zod'

const text = z.string().min(1)
const name = z.string().regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, 'expected a DNS label')
/** A host and perhaps a port, nothing else: the broker sends credentials there. */
const server = z
  .url({ protocol: /^https$/, error: 'expected an https URL' })
  .refine((value) => /^https:\/\/[^/?#@]+\/?$/.test(value), 'expected nothing but host and port')

/** How sidecars' projected tokens are checked: against the issuer's published keys, or by asking the API server. */
const serviceAccountTokens = z.discriminatedUnion('verify', [
  z.strictObject({ verify: z.literal('jwks'), issuer: text }),
  z.strictObject({ verify: z.literal('tokenReview') }),
])

const accountName = z.string().regex(/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/, 'expected a name')

/** The service account that a token is of: where it is given, the broker renews the token itself (broker/credentials/own-token.ts). */
const refresh = z.strictObject({ namespace: name, serviceAccount: accountName }).optional()

/** Mode `issuer` (docs/decisions/0006-credentials.md): the broker has nothing there but what it signs for each request. */
const issued = z.strictObject({
  issuer: z.strictObject({
    /** SHA-256 of the bearer token by which this cluster's API server asks the broker, hex; `nestgate connect` makes both. */
    authorizerTokenSha256: z.string().regex(/^[0-9a-f]{64}$/, 'expected 64 hex digits'),
  }),
})

/** For whom the broker alone may act in a cluster of mode `impersonation` whose admission asks the broker. */
const bound = z
  .strictObject({
    /** Namespaces whose service accounts are meant. */
    namespaces: z.array(name).default([]),
    users: z.array(text).default([]),
  })
  .optional()

const common = {
  /** Name in `/clusters/NAME/`: a DNS label. */
  name,
  serviceAccountTokens,
  /** Names of the policies that hold for this cluster; all of them when left out. */
  policies: z.array(text).min(1).optional(),
  bound,
}

/** A cluster of the configuration. */
export const clusterSchema = z.strictObject({
  ...common,
  /** The API server's address. */
  server: z.url({ protocol: /^https$/, error: 'expected an https URL' }),
  /** Certificates that the API server's own must be signed by, PEM. Nothing else is trusted. Read again when the file changes. */
  caFile: text,
  /** What the broker itself is there: a service account that may only impersonate. Read again when the file changes. */
  credential: z.union([
    z.strictObject({ tokenFile: text, refresh }),
    z.strictObject({ certFile: text, keyFile: text }),
    issued,
  ]),
})

/** See {@link clusterSchema}. */
export type ClusterConfig = z.infer<typeof clusterSchema>

/** The name of a file in the folder of secrets: no path, so that nothing outside it can be named. */
const secretName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$/, 'expected a file name')

/** A cluster as the API takes it: its authority in full, its credentials as names of files that the operator has put there. */
export const registeredSchema = z.strictObject({
  ...common,
  server,
  /** PEM. */
  ca: z.string().max(65_536).includes('-----BEGIN CERTIFICATE-----', 'expected PEM certificates'),
  credential: z.union([
    z.strictObject({ tokenFile: secretName, refresh }),
    z.strictObject({ certFile: secretName, keyFile: secretName }),
    issued,
  ]),
})

/** See {@link registeredSchema}. */
export type RegisteredCluster = z.infer<typeof registeredSchema>

/** A cluster, whoever told of it. */
export type ClusterSettings = Omit<ClusterConfig, 'caFile'> &
  ({ readonly caFile: string } | { readonly caPem: string })

/** A registered cluster with its files' places. @param secretsDir - folder of the credentials */
export function placed(
  { ca, credential, ...cluster }: RegisteredCluster,
  secretsDir: string,
): ClusterSettings {
  return { ...cluster, caPem: ca, credential: placedCredential(credential, secretsDir) }
}

function placedCredential(
  credential: RegisteredCluster['credential'],
  secretsDir: string,
): ClusterSettings['credential'] {
  if ('issuer' in credential) return credential
  if ('tokenFile' in credential)
    return { ...credential, tokenFile: join(secretsDir, credential.tokenFile) }
  return {
    certFile: join(secretsDir, credential.certFile),
    keyFile: join(secretsDir, credential.keyFile),
  }
}
