/** Volumes that can bring a credential from outside the pod: the node's files, drivers that ask for tokens, issued certificates. */
import { refuse } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'
import type { Pod, Volume } from './pod.ts'
import type { InjectionSettings } from './sidecar-spec.ts'

/** Signers of this domain issue certificates for the API server and its nodes; no list of the operator's admits them. */
const KUBERNETES_SIGNERS = 'kubernetes.io/'

/** Refuses such volumes but for what the settings allow; undefined where all is well. */
export function checkVolumes(pod: Pod, settings: InjectionSettings): Refusal | undefined {
  for (const [index, volume] of pod.spec.volumes.entries()) {
    const refusal = checkVolume(volume, `spec.volumes[${index}]`, settings)
    if (refusal !== undefined) return refusal
  }
  return undefined
}

function checkVolume(
  { hostPath, csi, flexVolume, gitRepo, projected }: Volume,
  path: string,
  { allowedCsiDrivers, allowedSigners }: InjectionSettings,
): Refusal | undefined {
  if (isSet(hostPath)) return refuse('host_path', `${path}.hostPath`)
  if (isSet(flexVolume)) return refuse('csi_driver', `${path}.flexVolume`)
  // The kubelet runs git for it, on the node (CVE-2024-10220).
  if (isSet(gitRepo)) return refuse('csi_driver', `${path}.gitRepo`)
  if (isSet(csi) && !allowedCsiDrivers.includes(csi.driver ?? ''))
    return refuse('csi_driver', `${path}.csi.driver`)
  const source = (projected?.sources ?? []).findIndex(({ podCertificate }) => {
    const signer = podCertificate?.signerName ?? ''
    return isSet(podCertificate) && !isAllowedSigner(signer, allowedSigners)
  })
  if (source === -1) return undefined
  return refuse('pod_certificate', `${path}.projected.sources[${source}].podCertificate.signerName`)
}

function isAllowedSigner(signer: string, allowed: readonly string[]): boolean {
  return !signer.startsWith(KUBERNETES_SIGNERS) && allowed.includes(signer)
}

function isSet<T>(value: T | null | undefined): value is T {
  return value !== undefined && value !== null
}
