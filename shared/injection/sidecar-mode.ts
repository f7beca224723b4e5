/** Which form of sidecar a cluster gets where the configuration says `auto`: for the webhook and the command line alike. */
import type { SidecarMode } from './sidecar-spec.ts'

/**
 * First version of an API server, as [major, minor], whose oldest supported kubelet (three minor versions
 * back, by the version skew policy) runs native sidecars without a feature gate: {@link NATIVE_KUBELET_MINOR}.
 */
const FIRST_NATIVE = [1, 32] as const
/** First minor of Kubernetes 1 whose kubelet runs native sidecars without a feature gate (KEP-753, beta). */
export const NATIVE_KUBELET_MINOR = 29

/** The form of sidecar for a cluster of this version. */
export function modeFor(major: number, minor: number): SidecarMode {
  const [nativeMajor, nativeMinor] = FIRST_NATIVE
  return major > nativeMajor || (major === nativeMajor && minor >= nativeMinor)
    ? 'native'
    : 'container'
}
