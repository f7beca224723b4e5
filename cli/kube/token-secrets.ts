/** Secrets with service accounts' tokens: those that old clusters make by themselves, and those that somebody made. */
import { isTokenSecret } from '../../shared/injection/tokens.ts'
import type { ClusterVersion } from './version.ts'

/** First minor of Kubernetes 1 whose token controller makes no Secret for each service account. */
const NO_SECRETS_MINOR = 24

/** Whether the cluster makes such a Secret for each service account, again and again. */
export function makesTokenSecrets({ major, minor }: ClusterVersion): boolean {
  return major === 1 && minor < NO_SECRETS_MINOR
}

/** Names of Secrets without those that the cluster makes; pods that refer to these are refused by name. */
export function withoutControllers(
  names: readonly string[],
  version: ClusterVersion,
): readonly string[] {
  return makesTokenSecrets(version) ? names.filter((name) => !isTokenSecret(name)) : names
}
