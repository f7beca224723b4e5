/**
 * Golden cases of `nestgate connect`: a folder for each mode and version, with the files as they are written. Token and authority are
 * always the same. Both sides, the test and the script that rewrites, come here.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ConnectFile } from '../../cli/connect/file.ts'
import { connectFiles } from '../../cli/connect/files.ts'
import { MODES, readInputs } from '../../cli/connect/inputs.ts'
import type { ConnectInputs, ConnectRequest } from '../../cli/connect/inputs.ts'

/** Folder of the cases. */
export const CONNECT_GOLDEN_FOLDER = fileURLToPath(new URL('../golden/connect', import.meta.url))
/** Kubernetes minors of the cases: each of the borders. */
export const GOLDEN_MINORS = [20, 28, 29, 30, 32, 34, 36] as const
/** An authority; its key is nobody's. */
export const GOLDEN_CA = readFileSync(join(CONNECT_GOLDEN_FOLDER, 'ca.crt'), 'utf8')
/** What the API server of the cases has for the broker. */
export const GOLDEN_TOKEN = { token: 'nestgate_golden', tokenSha256: 'ab'.repeat(32) }

/** A request of the cases. @param change - what is different */
export function goldenRequest(
  mode: (typeof MODES)[number],
  minor: number,
  change: Partial<ConnectRequest> = {},
): ConnectRequest {
  const isImpersonation = mode === 'impersonation'
  return {
    cluster: 'prod',
    mode,
    kubernetesVersion: `1.${minor}`,
    brokerUrl: 'https://broker.example:8443',
    brokerCa: GOLDEN_CA,
    server: 'https://10.0.0.5:6443',
    ca: GOLDEN_CA,
    namespaces: isImpersonation ? ['team-a', 'team-b'] : [],
    users: isImpersonation ? ['ci:repo:shop', 'sso:ann'] : [],
    groups: isImpersonation ? ['deployers'] : [],
    ...change,
  }
}

/** The files of a request. @throws where it has problems */
export function filesOfRequest(request: ConnectRequest): readonly ConnectFile[] {
  return connectFiles(inputsOf(request), GOLDEN_TOKEN)
}

/** All cases by their folder's name. */
export function connectCases(): ReadonlyMap<string, readonly ConnectFile[]> {
  return new Map(
    MODES.flatMap((mode) =>
      GOLDEN_MINORS.map((minor) => [
        `${mode}-1.${minor}`,
        filesOfRequest(goldenRequest(mode, minor)),
      ]),
    ),
  )
}

function inputsOf(request: ConnectRequest): ConnectInputs {
  const inputs = readInputs(request)
  if ('problems' in inputs) throw new Error(inputs.problems.join('; '))
  return inputs
}
