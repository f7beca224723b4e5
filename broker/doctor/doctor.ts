/**
 * `nestgate doctor`: what a cluster is, which mode is possible there, and whether every trap is closed: proved by trying.
 * Runs in the broker, because only there are the keys and credentials that the attempts need.
 */
import { z } from 'zod'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { DoctorReport, ProbeResult } from '../../shared/wire.ts'
import type { ClusterSettings } from '../clusters/settings.ts'
import { clusterJson } from '../credentials/cluster-json.ts'
import type { AskedConnection } from '../credentials/cluster-json.ts'
import type { Issuer } from '../credentials/parts.ts'
import { impersonationProbes } from './impersonation-probes.ts'
import { issuerProbes } from './issuer-probes.ts'

/** First minor of Kubernetes 1 with structured authentication and authorization, and with admission policies. */
const STRUCTURED_MINOR = 30
/** Builds of providers whose API servers take no flags from their users. */
const MANAGED = /-(eks|gke)|(azmk8s|-aks)/i

const versionSchema = z.object({
  major: z.string(),
  minor: z.string().regex(/^\d+/),
  gitVersion: z.string().max(100),
})

/** What the doctor needs. */
export interface DoctorDeps {
  readonly issuer: Issuer | undefined
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** Looks at a cluster. @returns `upstream_unavailable` where it does not even tell its version */
export async function examine(
  { issuer, now }: DoctorDeps,
  connection: AskedConnection,
  settings: ClusterSettings,
): Promise<DoctorReport | Refusal> {
  const answer = await clusterJson(connection, 'GET', '/version')
  if ('problem' in answer) return refuse('upstream_unavailable', `/version: ${answer.problem}`)
  const version = versionSchema.safeParse(answer.json)
  if (!version.success) return refuse('upstream_invalid', '/version')
  const { gitVersion } = version.data
  const minor = Number.parseInt(version.data.minor, 10)
  const isStructured = minor >= STRUCTURED_MINOR
  const { mode } = connection.credential
  const probes =
    mode === 'issuer'
      ? await probesOfIssuer(issuer, { connection, isStructured, now })
      : await impersonationProbes(connection, settings)
  return {
    cluster: connection.name,
    ...{ version: gitVersion, mode },
    possible: possibleModes(gitVersion, minor),
    probes,
    ok: probes.every(({ outcome }) => outcome !== 'failed'),
  }
}

/** A cluster of that mode has an issuer, or there would be no way to it. */
async function probesOfIssuer(
  issuer: Issuer | undefined,
  deps: Omit<Parameters<typeof issuerProbes>[0], 'issuer'>,
): Promise<readonly ProbeResult[]> {
  return issuer === undefined ? [] : issuerProbes({ issuer, ...deps })
}

/** Which modes a cluster of this version can have, and by what; a guess where somebody else runs the API server. */
export function possibleModes(gitVersion: string, minor: number): DoctorReport['possible'] {
  const isManaged = MANAGED.test(gitVersion)
  const files = minor >= STRUCTURED_MINOR
  const means = files
    ? 'AuthenticationConfiguration and AuthorizationConfiguration files'
    : 'flags: one OIDC issuer and one authorization webhook'
  return [
    {
      mode: 'issuer',
      possible: !isManaged,
      how: isManaged
        ? 'this build is a provider’s, whose API server takes no configuration'
        : means,
    },
    {
      mode: 'impersonation',
      possible: true,
      how: files
        ? 'RBAC, and an admission policy that binds writes'
        : 'RBAC, and a webhook that binds writes',
    },
  ]
}
