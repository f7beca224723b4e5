/** What a cluster's API server says of its version, by kubectl. */
import { z } from 'zod'
import { modeFor } from '../../shared/injection/sidecar-mode.ts'
import type { SidecarMode } from '../../shared/injection/sidecar-spec.ts'
import { CallError } from '../client.ts'
import { isFailure } from './kubectl.ts'
import type { Kubectl } from './kubectl.ts'

/** Managed clusters write `29+`. */
const number = z
  .string()
  .regex(/^\d{1,5}\+?$/)
  .transform((text) => Number.parseInt(text, 10))
const versionSchema = z.object({
  serverVersion: z.object({ major: number, minor: number, gitVersion: z.string() }),
})

/** Version of an API server. */
export interface ClusterVersion {
  readonly major: number
  readonly minor: number
  readonly gitVersion: string
}

/** Asks the API server. @throws CallError where it cannot be asked */
export async function clusterVersion(kubectl: Kubectl): Promise<ClusterVersion> {
  const answer = await kubectl.json(['version'])
  if (isFailure(answer)) throw new CallError(`the cluster cannot be asked: ${answer.said}`)
  const parsed = versionSchema.safeParse(answer.value)
  if (!parsed.success) throw new CallError('kubectl version: no version of a server came back')
  return parsed.data.serverVersion
}

/** The form of sidecar that pods of this cluster get by `mode: auto`. */
export function modeOf({ major, minor }: ClusterVersion): SidecarMode {
  return modeFor(major, minor)
}
