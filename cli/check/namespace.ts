/** What else of a namespace decides whether its pods start, and whether they find another way. */
import type { Config } from '../../shared/injection/config.ts'
import { isFailure } from '../kube/kubectl.ts'
import { makesTokenSecrets, withoutControllers } from '../kube/token-secrets.ts'
import type { ClusterVersion } from '../kube/version.ts'
import type { NamespaceFacts } from './facts.ts'
import { checkNamed } from './finding.ts'
import type { Finding } from './finding.ts'
import { levelOf } from './labels.ts'

const PSA_LABEL = 'pod-security.kubernetes.io/enforce'
const IMPERSONATOR = 'nestgate-impersonator'

/** Annotations by which a cloud gives a service account an identity of its own. */
const CLOUD_ANNOTATIONS: Readonly<Record<string, string>> = {
  'eks.amazonaws.com/role-arn': 'AWS',
  'iam.gke.io/gcp-service-account': 'Google Cloud',
  'azure.workload.identity/client-id': 'Azure',
}

const security = checkNamed('pod-security')
const binding = checkNamed('broker-may-act')
const accounts = checkNamed('service-accounts')
const secrets = checkNamed('token-secrets')

/** Whether Pod Security lets the sidecar's profiles pass: P runs as root with two capabilities. */
export function podSecurityFinding(
  { name, labels }: NamespaceFacts,
  config: Config | undefined,
): Finding {
  const level = labels[PSA_LABEL] ?? 'privileged'
  if (level === 'privileged')
    return security.ok(name, 'Pod Security refuses nothing; what matters here Nestgate refuses')
  const profiles = config?.identity.profiles ?? ['R', 'P', 'C']
  if (levelOf(labels) === 'container' || !profiles.includes('P'))
    return security.ok(name, `Pod Security ${level} lets every profile pass that pods can get here`)
  return security.warn(
    name,
    `Pod Security ${level} refuses profile P, which pods get whose containers have several users, or none that is known`,
    'set runAsUser and runAsGroup of such pods (profile R), label the namespace nestgate.dev/identity=container, or take P out of identity.profiles',
  )
}

/** Whether the broker may act as the namespace's service accounts. */
export function bindingFinding({ name, roleBindings }: NamespaceFacts): Finding {
  if (isFailure(roleBindings)) return binding.unknown(name, roleBindings.said)
  const found = roleBindings.some(
    ({ roleRef, subjects }) =>
      roleRef.kind === 'ClusterRole' &&
      roleRef.name.startsWith(IMPERSONATOR) &&
      subjects.some(({ kind }) => kind === 'ServiceAccount'),
  )
  if (found) return binding.ok(name, 'the broker may act as its service accounts')
  return binding.warn(
    name,
    `no RoleBinding to ${IMPERSONATOR}: in mode impersonation the broker cannot act here`,
    'apply the namespace kit (docs/installation.md); mode issuer does without',
  )
}

/** Service accounts that bring credentials by themselves. */
export function accountFindings(
  { name, serviceAccounts }: NamespaceFacts,
  version: ClusterVersion,
): readonly Finding[] {
  if (isFailure(serviceAccounts)) return [accounts.unknown(name, serviceAccounts.said)]
  const findings = serviceAccounts.flatMap(({ metadata, secrets: tokens }) => {
    const about = `${name}: ${metadata.name}`
    const clouds = Object.entries(CLOUD_ANNOTATIONS).filter(([key]) => key in metadata.annotations)
    return [
      ...clouds.map(([key, cloud]) =>
        accounts.warn(
          about,
          `has an identity at ${cloud} (${key}), which can be good for the cluster’s API as well`,
          'give the identity no rights on the cluster, or take it away',
        ),
      ),
      ...(tokens.length === 0 || makesTokenSecrets(version)
        ? []
        : [
            accounts.warn(
              about,
              `names ${tokens.length} Secrets`,
              'see that none is a token: up to 1.23 the cluster made one for each account, and they stay',
            ),
          ]),
    ]
  })
  if (findings.length > 0) return findings
  return [
    accounts.ok(name, `${serviceAccounts.length} service accounts bring nothing of their own`),
  ]
}

/** Tokens that never end, for whoever may read or mount Secrets. */
export function tokenSecretFinding(
  { name, tokenSecrets }: NamespaceFacts,
  version: ClusterVersion,
): Finding {
  if (isFailure(tokenSecrets)) return secrets.unknown(name, tokenSecrets.said)
  const made = withoutControllers(tokenSecrets, version)
  const [first] = made
  if (first === undefined)
    return secrets.ok(
      name,
      tokenSecrets.length === 0
        ? 'no Secret holds a service account’s token'
        : `${tokenSecrets.length} token Secrets are the cluster’s own, as up to 1.23; pods cannot have them`,
    )
  return secrets.fail(
    name,
    `${made.length} Secrets hold service accounts’ tokens: ${made.slice(0, 5).join(', ')}`,
    `kubectl -n ${name} delete secret ${first} once nothing uses it`,
  )
}
