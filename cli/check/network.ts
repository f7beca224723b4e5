/** NetworkPolicies of a namespace: egress is denied but for DNS and the broker, and nothing opens it again (they add up). */
import { isFailure } from '../kube/kubectl.ts'
import { DEFAULT_NAMESPACE, PART_OF } from '../kube/installation.ts'
import type { EgressRule, NetworkPolicy } from '../kube/objects.ts'
import type { Read } from '../kube/read.ts'
import { selects, selectsAll } from '../kube/selector.ts'
import { checkNamed } from './finding.ts'
import type { Finding } from './finding.ts'

const check = checkNamed('network-policy')
const DNS_PORT = 53
const NAME_LABEL = 'kubernetes.io/metadata.name'

/** How far a rule lets out. */
export type Reach = 'dns' | 'broker' | 'anywhere' | 'somewhere'

/** Whether a policy says anything of egress (networking/v1: without types it does where it has rules of egress). */
function isEgress({ spec }: NetworkPolicy): boolean {
  return spec.policyTypes.length === 0
    ? spec.egress.length > 0
    : spec.policyTypes.includes('Egress')
}

/** How far a rule lets out; `systems` are the namespaces in which brokers run. */
function reachOf(rule: EgressRule, systems: readonly string[]): Reach {
  if (
    rule.ports.length > 0 &&
    rule.ports.every(({ port }) => port === DNS_PORT || port === 'dns' || port === 'dns-tcp')
  )
    return 'dns'
  if (rule.to.length === 0) return 'anywhere'
  if (rule.to.some(({ ipBlock }) => ipBlock?.cidr.endsWith('/0') === true)) return 'anywhere'
  return rule.to.every((peer) => isBroker(peer, systems)) ? 'broker' : 'somewhere'
}

function isBroker(peer: EgressRule['to'][number], systems: readonly string[]): boolean {
  const { podSelector, namespaceSelector } = peer
  if (peer.ipBlock || !namespaceSelector || !podSelector) return false
  if (selectsAll(namespaceSelector) || selectsAll(podSelector)) return false
  const [label, value] = PART_OF
  const isSystem = systems.some((name) =>
    selects(namespaceSelector, { [NAME_LABEL]: name, [label]: value }),
  )
  const name = podSelector.matchLabels?.['app.kubernetes.io/name'] ?? ''
  return isSystem && name.startsWith('nestgate-broker')
}

/** What of a namespace's policies is not as it should be. */
export function networkFindings(
  name: string,
  policies: Read<readonly NetworkPolicy[]>,
  systems: readonly string[] = [DEFAULT_NAMESPACE],
): readonly Finding[] {
  if (isFailure(policies)) return [check.unknown(name, policies.said)]
  const egress = policies.filter(isEgress)
  const findings: Finding[] = []
  if (!egress.some(({ spec }) => selectsAll(spec.podSelector)))
    findings.push(
      check.fail(
        name,
        'no NetworkPolicy denies egress to all pods: a credential from elsewhere reaches the API server',
        'apply the namespace kit (docs/installation.md), which lets out DNS and the broker only',
      ),
    )
  for (const policy of egress) {
    const reaches = policy.spec.egress.map((rule) => reachOf(rule, systems))
    if (reaches.includes('anywhere'))
      findings.push(
        check.fail(
          name,
          `NetworkPolicy ${policy.metadata.name} lets ${whom(policy)} out to any address, the API server’s included`,
          'narrow it: policies add up',
        ),
      )
    else if (reaches.includes('somewhere'))
      findings.push(
        check.warn(
          name,
          `NetworkPolicy ${policy.metadata.name} lets ${whom(policy)} out to ${targets(policy, systems)}`,
          'see that neither API server, kubelets nor metadata servers are among it',
        ),
      )
  }
  if (findings.length > 0) return findings
  return [check.ok(name, 'egress is denied but for DNS and the broker')]
}

function whom({ spec }: NetworkPolicy): string {
  return selectsAll(spec.podSelector) ? 'all pods' : 'some pods'
}

function targets({ spec }: NetworkPolicy, systems: readonly string[]): string {
  const peers = spec.egress
    .filter((rule) => reachOf(rule, systems) === 'somewhere')
    .flatMap(({ to }) => to)
  const blocks = peers.flatMap(({ ipBlock }) => (ipBlock ? [ipBlock.cidr] : []))
  const pods = peers.some(({ ipBlock }) => !ipBlock) ? ['other pods'] : []
  return [...blocks, ...pods].join(', ')
}
