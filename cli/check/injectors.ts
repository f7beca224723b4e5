/** Other webhooks that change pods of the same namespaces, and what is known to clash with them. */
import { isKnown, isOurs } from '../kube/installation.ts'
import { isFailure } from '../kube/kubectl.ts'
import type { WebhookConfiguration, WebhookEntry } from '../kube/objects.ts'
import { selects } from '../kube/selector.ts'
import type { ClusterFacts } from './facts.ts'
import { checkNamed } from './finding.ts'
import type { Finding } from './finding.ts'

const check = checkNamed('other-injectors')

interface Known {
  readonly name: RegExp
  readonly what: string
  /** Audience of the token that it projects, which must be allowed. */
  readonly audience?: string
  /** What else is to be known. */
  readonly clash?: string
  readonly remedy: string
}

/** From the sources of each; see docs/check.md, "Other injectors". */
const KNOWN: readonly Known[] = [
  {
    name: /istio/,
    what: 'Istio',
    audience: 'istio-ca',
    clash:
      'istio-init asks for NET_ADMIN and NET_RAW, so that callers are told apart by container at best',
    remedy: 'use Istio’s CNI plugin or ambient mode',
  },
  {
    name: /linkerd/,
    what: 'Linkerd',
    audience: 'identity.l5d.io',
    clash:
      'linkerd-init asks for NET_ADMIN and NET_RAW, so that callers are told apart by container at best',
    remedy: 'use linkerd-cni',
  },
  {
    name: /vault/,
    what: 'the Vault agent injector',
    clash: 'it borrows the token that the pod’s containers have mounted, and finds none',
    remedy:
      'give it a volume of its own (vault.hashicorp.com/agent-service-account-token-volume-name), with an audience of tokens.allowedAudiences',
  },
  {
    name: /azure-wi|azure-workload-identity/,
    what: 'Azure Workload Identity',
    audience: 'api://AzureADTokenExchange',
    clash: 'an identity of the cloud can be good for the cluster’s API as well',
    remedy: 'give its identities no rights on the cluster',
  },
  {
    name: /pod-identity-webhook|eks-pod-identity/,
    what: 'EKS Pod Identity',
    audience: 'sts.amazonaws.com',
    clash: 'an identity of the cloud can be good for the cluster’s API as well',
    remedy: 'give its roles no access entry of the cluster',
  },
  {
    name: /dapr/,
    what: 'Dapr',
    clash:
      'it projects a token for its own authority, whose audience must be in tokens.allowedAudiences',
    remedy: 'add the SPIFFE id of its sentry there, or keep it out of these namespaces',
  },
  {
    name: /kuma|kong-mesh/,
    what: 'Kuma',
    clash: 'its sidecar takes over the mount of the service account’s token, and finds none',
    remedy: 'keep it out of these namespaces, or give it a token of its own',
  },
  {
    name: /consul/,
    what: 'Consul',
    clash: 'it logs in with the service account’s token of the pod, and finds none',
    remedy: 'keep it out of these namespaces',
  },
  {
    name: /datadog/,
    what: 'the Datadog agent',
    clash: 'with sockets it mounts files of the node, which are refused (host_path)',
    remedy: 'let it inject by service, not by socket',
  },
  {
    name: /gcsfuse|gke-gcsfuse/,
    what: 'Cloud Storage FUSE',
    clash:
      'its volumes are of a CSI driver, and older versions drop restartPolicy of native sidecars',
    remedy: 'add gcsfuse.csi.storage.gke.io to volumes.allowedCsiDrivers, and update it',
  },
]

/** Every other webhook that changes new pods of a namespace that takes part. */
export function injectorFindings(facts: ClusterFacts): readonly Finding[] {
  const { mutating, namespaces } = facts
  if (isFailure(mutating)) return [check.unknown('mutating webhooks', mutating.said)]
  const others = mutating.filter(
    (one) =>
      !isOurs(one) &&
      one.webhooks.some(
        (entry) =>
          changesPods(entry) &&
          namespaces.some(({ labels }) => selects(entry.namespaceSelector, labels)),
      ),
  )
  const findings = others.flatMap((one) => injectorFinding(one, facts))
  if (findings.length > 0) return findings
  return [check.ok('mutating webhooks', 'no other changes pods of these namespaces')]
}

function changesPods({ rules }: WebhookEntry): boolean {
  return rules.some(
    ({ apiGroups, operations, resources }) =>
      apiGroups.some((group) => group === '' || group === '*') &&
      operations.some((one) => one === 'CREATE' || one === '*') &&
      resources.some((one) => one === 'pods' || one === '*' || one === '*/*'),
  )
}

function injectorFinding(
  { metadata: { name } }: WebhookConfiguration,
  { installations }: ClusterFacts,
): readonly Finding[] {
  const known = KNOWN.find((one) => one.name.test(name))
  const order = installations.some((one) => one.name < name)
    ? 'runs after ours'
    : 'runs before ours'
  if (known === undefined)
    return [
      check.warn(
        name,
        `${order}, and may change pods: the final state refuses what it undoes`,
        'try a pod that it changes',
      ),
    ]
  const findings: Finding[] = []
  const allowed = installations.flatMap(({ config }) =>
    isKnown(config) ? config.tokens.allowedAudiences : [],
  )
  if (known.audience !== undefined && !allowed.includes(known.audience))
    findings.push(
      check.warn(
        name,
        `${known.what}, ${order}: pods that it injects are refused (token_audience_not_allowed)`,
        `add ${known.audience} to tokens.allowedAudiences, or keep it out of these namespaces`,
      ),
    )
  if (known.clash !== undefined)
    findings.push(check.warn(name, `${known.what}, ${order}: ${known.clash}`, known.remedy))
  return findings
}
