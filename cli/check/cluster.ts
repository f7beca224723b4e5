/** The cluster itself: versions of API server and nodes, and what enforces its NetworkPolicies. */
import { NATIVE_KUBELET_MINOR } from '../../shared/injection/sidecar-mode.ts'
import type { SidecarMode } from '../../shared/injection/sidecar-spec.ts'
import { isFailure } from '../kube/kubectl.ts'
import { isKnown } from '../kube/installation.ts'
import type { Workload } from '../kube/objects.ts'
import { modeOf } from '../kube/version.ts'
import type { ClusterVersion } from '../kube/version.ts'
import type { ClusterFacts } from './facts.ts'
import { checkNamed } from './finding.ts'
import type { Finding } from './finding.ts'

/** Oldest minor of Kubernetes 1 that Nestgate works on. */
const OLDEST_MINOR = 20
/** Most names that one line lists. */
const MAX_NAMES = 5

const versionCheck = checkNamed('version')
const nodesCheck = checkNamed('nodes')
const enforcement = checkNamed('network-enforced')

/** Version of the API server, by what it means for sidecars and the final state. */
export function versionFindings({ version }: ClusterFacts): readonly Finding[] {
  const { major, minor, gitVersion } = version
  if (major === 1 && minor < OLDEST_MINOR)
    return [
      versionCheck.fail(
        'API server',
        `${gitVersion} is older than 1.${OLDEST_MINOR}`,
        'upgrade it',
      ),
    ]
  return [
    versionCheck.ok('API server', `${gitVersion}; sidecar.mode auto means ${modeOf(version)}`),
  ]
}

/** The modes in which sidecars are injected on this cluster. */
export function modesOf({ installations, version }: ClusterFacts): ReadonlySet<SidecarMode> {
  const modes = installations.flatMap(({ config }) =>
    isKnown(config) ? [config.sidecar.mode === 'auto' ? modeOf(version) : config.sidecar.mode] : [],
  )
  return new Set(modes.length === 0 ? [modeOf(version)] : modes)
}

/** Whether every node runs the sidecar in the form that pods get. */
export function nodeFindings(facts: ClusterFacts): readonly Finding[] {
  const { nodes } = facts
  if (isFailure(nodes)) return [nodesCheck.unknown('nodes', nodes.said)]
  if (nodes.length === 0)
    return [nodesCheck.warn('nodes', 'there are none', 'see why: no pod runs, and no webhook')]
  const findings: Finding[] = []
  const linux = nodes.filter(({ status }) => status.nodeInfo.operatingSystem !== 'windows')
  const tooOld = linux.filter(
    ({ status }) => minorOf(status.nodeInfo.kubeletVersion) < NATIVE_KUBELET_MINOR,
  )
  if (modesOf(facts).has('native') && tooOld.length > 0)
    findings.push(
      nodesCheck.fail(
        names(tooOld.map(({ metadata }) => metadata.name)),
        `${tooOld.length} of ${linux.length} kubelets are older than 1.${NATIVE_KUBELET_MINOR}: they refuse native sidecars, or hang`,
        'upgrade them, or set sidecar.mode: container',
      ),
    )
  const windows = nodes.length - linux.length
  if (windows > 0)
    findings.push(
      nodesCheck.warn(
        `${windows} nodes`,
        'run Windows, where no sidecar runs: pods for them are refused in labelled namespaces',
        'give such pods a namespace without the label',
      ),
    )
  if (findings.length > 0) return findings
  const versions = [...new Set(linux.map(({ status }) => status.nodeInfo.kubeletVersion))].sort()
  return [nodesCheck.ok(`${linux.length} nodes`, `kubelets ${names(versions)}`)]
}

function minorOf(version: string): number {
  const [, minor = '0'] = /^v?1\.(\d+)/.exec(version) ?? []
  return Number(minor)
}

function names(list: readonly string[]): string {
  const shown = list.slice(0, MAX_NAMES).join(', ')
  return list.length > MAX_NAMES ? `${shown} and ${list.length - MAX_NAMES} more` : shown
}

/** DaemonSets that enforce NetworkPolicies, egress included, and whose they are. */
const ENFORCERS: readonly (readonly [RegExp, string])[] = [
  [/^calico-node$|^canal$/, 'Calico'],
  [/^cilium$|^anetd$/, 'Cilium'],
  [/^antrea-agent$/, 'Antrea'],
  [/^weave-net$/, 'Weave Net'],
  [/^kube-router$/, 'kube-router'],
  [/^ovnkube-node$|^ovs-ovn$|^kube-ovn-cni$/, 'OVN'],
  [/^azure-npm/, 'Azure Network Policy Manager'],
  [/^kube-network-policies$/, 'kube-network-policies'],
  [/^terway/, 'Terway'],
]
/** DaemonSets of networks that pass over NetworkPolicies. */
const PASSERS = 'flannel'
/** Distributions that have an enforcer built in. */
const BUILT_IN = '+k3s'

/** Whether something on the cluster enforces NetworkPolicies, as far as names tell. */
export function enforcementFindings({ daemonSets, version }: ClusterFacts): readonly Finding[] {
  const remedy =
    'use a network that enforces egress policies, and try it: from an injected pod, a connection to the API server’s address must not come about'
  if (isFailure(daemonSets)) return [enforcement.unknown('network', daemonSets.said)]
  const found = enforcerOf(daemonSets, version)
  if (found !== undefined) return [enforcement.ok('network', `${found} enforces NetworkPolicies`)]
  const named = daemonSets.map(({ metadata }) => metadata.name)
  if (named.some((name) => name.includes(PASSERS)))
    return [enforcement.fail('network', 'flannel alone passes over NetworkPolicies', remedy)]
  const amazon = daemonSets.find(({ metadata }) => metadata.name === 'aws-node')
  if (amazon !== undefined)
    return [
      enforcement.fail(
        'network',
        'the VPC CNI has its network policy agent switched off',
        'set enableNetworkPolicy',
      ),
    ]
  if (named.includes('kindnet'))
    return [
      enforcement.warn(
        'network',
        'kindnet enforces NetworkPolicies from kind 0.24 on, and not before',
        remedy,
      ),
    ]
  return [
    enforcement.warn(
      'network',
      'nothing that is known to enforce NetworkPolicies was found',
      remedy,
    ),
  ]
}

function enforcerOf(
  daemonSets: readonly Workload[],
  { gitVersion }: ClusterVersion,
): string | undefined {
  for (const { metadata, spec } of daemonSets) {
    const known = ENFORCERS.find(([name]) => name.test(metadata.name))
    if (known !== undefined) return known[1]
    const agent = spec.template.spec.containers.find(({ args }) =>
      args.includes('--enable-network-policy=true'),
    )
    if (metadata.name === 'aws-node' && agent !== undefined) return 'the VPC CNI’s agent'
  }
  return gitVersion.includes(BUILT_IN) ? 'k3s' : undefined
}
