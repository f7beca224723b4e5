/**
 * `nestgate doctor`: what a cluster is, which mode is possible there, and whether every trap is closed: proved by trying.
 * Runs in the broker, because only there are the keys and credentials that the attempts need.
 */
import {
  isStructured,
  possibleModes,
  serverVersionSchema,
} from '../../shared/kubernetes/server-version.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { DoctorReport, ProbeResult } from '../../shared/wire.ts'
import type { ClusterSettings } from '../clusters/settings.ts'
import { clusterJson } from '../credentials/cluster-json.ts'
import type { AskedConnection } from '../credentials/cluster-json.ts'
import type { Issuer } from '../credentials/parts.ts'
import { impersonationProbes } from './impersonation-probes.ts'
import { issuerProbes } from './issuer-probes.ts'

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
  const version = serverVersionSchema.safeParse(answer.json)
  if (!version.success) return refuse('upstream_invalid', '/version')
  const { gitVersion, minor } = version.data
  const { mode } = connection.credential
  const probes =
    mode === 'issuer'
      ? await probesOfIssuer(issuer, { connection, isStructured: isStructured(version.data), now })
      : await impersonationProbes(connection, settings)
  return {
    cluster: connection.name,
    ...{ version: gitVersion, minor, mode },
    possible: possibleModes(version.data),
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
