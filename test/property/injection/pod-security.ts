/**
 * Pod Security Standards, level `restricted` with all of `baseline` (kubernetes.io/docs/concepts/security/pod-security-standards,
 * policy version 1.34): what they say no to in a pod.
 */
import type { Json } from '../../support/pod-admission.ts'
import { containersOf, itemsOf } from '../../support/pods.ts'

const VOLUMES = [
  'configMap',
  'csi',
  'downwardAPI',
  'emptyDir',
  'ephemeral',
  'image',
  'persistentVolumeClaim',
  'projected',
  'secret',
]
const SYSCTLS = [
  'kernel.shm_rmid_forced',
  'net.ipv4.ip_local_port_range',
  'net.ipv4.ip_local_reserved_ports',
  'net.ipv4.ip_unprivileged_port_start',
  'net.ipv4.ping_group_range',
  'net.ipv4.tcp_fin_timeout',
  'net.ipv4.tcp_keepalive_intvl',
  'net.ipv4.tcp_keepalive_probes',
  'net.ipv4.tcp_keepalive_time',
  'net.ipv4.tcp_rmem',
  'net.ipv4.tcp_syncookies',
  'net.ipv4.tcp_wmem',
]
const SECCOMP = ['RuntimeDefault', 'Localhost']

const record = (value: unknown): Json => (value ?? {}) as Json

/** What `restricted` has against a pod; nothing where it is admitted. */
export function restrictedViolations(pod: Json): readonly string[] {
  const spec = record(pod['spec'])
  const outer = record(spec['securityContext'])
  const found: string[] = []
  const say = (when: boolean, what: string): void => {
    if (when) found.push(what)
  }
  for (const key of ['hostNetwork', 'hostPID', 'hostIPC']) say(spec[key] === true, key)
  say(outer['windowsOptions'] !== undefined, 'windowsOptions')
  for (const { name } of itemsOf(outer, 'sysctls')) say(!SYSCTLS.includes(String(name)), 'sysctls')
  for (const volume of itemsOf(spec, 'volumes')) {
    const kinds = Object.keys(volume).filter((key) => key !== 'name' && volume[key] !== null)
    say(
      kinds.some((kind) => !VOLUMES.includes(kind)),
      `volume ${kinds.join()}`,
    )
  }
  say(outer['runAsNonRoot'] === false || outer['runAsUser'] === 0, 'pod runs as root')
  for (const { path, it } of containersOf(pod)) {
    const context = record(it['securityContext'])
    const capabilities = record(context['capabilities'])
    const added = (capabilities['add'] ?? []) as string[]
    const dropped = (capabilities['drop'] ?? []) as string[]
    say(context['privileged'] === true, `${path} privileged`)
    say((context['procMount'] ?? 'Default') !== 'Default', `${path} procMount`)
    say(context['allowPrivilegeEscalation'] !== false, `${path} allowPrivilegeEscalation`)
    say(!dropped.includes('ALL'), `${path} drop`)
    say(
      added.some((name) => name !== 'NET_BIND_SERVICE'),
      `${path} add`,
    )
    say((context['runAsNonRoot'] ?? outer['runAsNonRoot']) !== true, `${path} runAsNonRoot`)
    say(context['runAsUser'] === 0, `${path} runAsUser`)
    const seccomp = record(context['seccompProfile'] ?? outer['seccompProfile'])['type']
    say(!SECCOMP.includes(String(seccomp)), `${path} seccompProfile`)
    for (const port of itemsOf(it, 'ports')) say((port['hostPort'] ?? 0) !== 0, `${path} hostPort`)
    const handlers = [
      ...['livenessProbe', 'readinessProbe', 'startupProbe'].map((key) => it[key]),
      ...['postStart', 'preStop'].map((key) => record(it['lifecycle'])[key]),
    ]
    for (const handler of handlers)
      for (const kind of ['httpGet', 'tcpSocket'])
        say((record(record(handler)[kind])['host'] ?? '') !== '', `${path} host`)
  }
  return found
}
