/** What an API server says of its version, and which modes of credentials that leaves (docs/decisions/0006-credentials.md). */
import { z } from 'zod'

/** First minor of Kubernetes 1 with structured authentication and authorization, and with admission policies. */
const STRUCTURED_MINOR = 30
/** Builds of providers whose API servers take no flags from their users. */
const MANAGED = /-(eks|gke)|azmk8s|-aks/i

/** An answer of `/version`. */
export const serverVersionSchema = z
  .object({ minor: z.string().regex(/^\d{1,3}/), gitVersion: z.string().max(100) })
  .transform(({ minor, gitVersion }) => ({ gitVersion, minor: Number.parseInt(minor, 10) }))

/** See {@link serverVersionSchema}. */
export type ServerVersion = z.output<typeof serverVersionSchema>

/** A mode, whether a cluster can have it, and by what. */
export interface PossibleMode {
  readonly mode: 'issuer' | 'impersonation'
  readonly possible: boolean
  readonly how: string
}

/** Whether the API server takes configuration files for authentication and authorization. */
export function isStructured({ minor }: ServerVersion): boolean {
  return minor >= STRUCTURED_MINOR
}

/** Which modes a cluster can have; of a provider's build the version alone is known, so that this is a guess. */
export function possibleModes(version: ServerVersion): readonly PossibleMode[] {
  const isManaged = MANAGED.test(version.gitVersion)
  const files = isStructured(version)
  const means = files
    ? 'AuthenticationConfiguration and AuthorizationConfiguration files'
    : 'flags: one OIDC issuer and one authorization webhook'
  return [
    {
      mode: 'issuer',
      possible: !isManaged,
      how: isManaged ? 'a provider’s build, whose API server takes no configuration' : means,
    },
    {
      mode: 'impersonation',
      possible: true,
      how: files
        ? 'RBAC, and a webhook and a policy that bind writes'
        : 'RBAC, and a webhook that binds writes',
    },
  ]
}
