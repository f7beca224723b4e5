import { expect } from 'chai'
import { describe, it } from 'mocha'
import type { SidecarMode } from '../../../shared/injection/sidecar-spec.ts'
import type { Json } from '../../support/pod-admission.ts'
import { SETTINGS, inject } from '../../support/reviews.ts'

/** A pod as the webhook leaves it; each call makes a new one. */
function injected(mode: SidecarMode = 'native'): { pod: Json; spec: Json; sidecar: Json } {
  const { pod } = inject({ spec: { containers: [{ name: 'a' }] } }, { ...SETTINGS, mode })
  const spec = pod?.['spec'] as Json
  const list = spec[mode === 'native' ? 'initContainers' : 'containers'] as Json[]
  return { pod: pod ?? {}, spec, sidecar: list[0] ?? {} }
}

function verdict(pod: Json, mode: SidecarMode = 'native'): string {
  const { reviewed, response } = inject(pod, { ...SETTINGS, mode })
  if (reviewed.outcome !== 'denied') return reviewed.outcome
  expect(reviewed.reason).to.equal('reserved_name')
  return (response['status'] as { message: string }).message
}

describe('a sidecar in the pod already', () => {
  const harmless: readonly (readonly [string, (sidecar: Json) => void])[] = [
    ['nothing', () => undefined],
    ['a defaulted resize policy', (it) => (it['resizePolicy'] = [{ resourceName: 'cpu' }])],
    ['the pull policy Always', (it) => (it['imagePullPolicy'] = 'Always')],
    ['null members', (it) => (it['envFrom'] = null)],
    ['the default procMount', (it) => ((it['securityContext'] as Json)['procMount'] = 'Default')],
    [
      'more kinds of resources, and other spellings of ours',
      (it) =>
        (it['resources'] = {
          requests: { cpu: '0.01', memory: '65536Ki', 'ephemeral-storage': '1Gi' },
          limits: { cpu: '0.5', memory: '192Mi' },
        }),
    ],
  ]
  for (const [what, change] of harmless)
    it(`is left alone with ${what} of the API server's`, () => {
      const { pod, sidecar } = injected()
      change(sidecar)
      expect(verdict(pod)).to.equal('unchanged')
    })

  it('is left alone with its seccomp profile as an annotation, which API servers of 1.19 to 1.26 write', () => {
    const key = 'container.seccomp.security.alpha.kubernetes.io/nestgate-sidecar'
    for (const [value, expected] of [
      ['runtime/default', 'unchanged'],
      ['unconfined', `metadata.annotations[${key}] is about nestgate-sidecar`],
    ] as const) {
      const { pod } = injected('container')
      const metadata = pod['metadata'] as Json
      metadata['annotations'] = { ...(metadata['annotations'] as Json), [key]: value }
      expect(verdict(pod, 'container')).to.contain(expected)
    }
  })

  const harmful: readonly (readonly [string, (sidecar: Json) => void])[] = [
    ['image', (it) => (it['image'] = 'evil.example/x')],
    ['command', (it) => (it['command'] = ['node', '--inspect', '/app/sidecar/main.js'])],
    ['args', (it) => (it['args'] = ['--x'])],
    ['env', (it) => (it['env'] as Json[]).push({ name: 'NODE_OPTIONS', value: '--inspect' })],
    ['envFrom', (it) => (it['envFrom'] = [{ configMapRef: { name: 'x' } }])],
    ['workingDir', (it) => (it['workingDir'] = '/tmp')],
    ['lifecycle', (it) => (it['lifecycle'] = { postStart: { exec: { command: ['sh'] } } })],
    ['volumeMounts', (it) => (it['volumeMounts'] as Json[]).push({ name: 'x', mountPath: '/app' })],
    ['securityContext', (it) => ((it['securityContext'] as Json)['privileged'] = true)],
    ['securityContext', (it) => ((it['securityContext'] as Json)['procMount'] = 'Unmasked')],
    ['restartPolicy', (it) => delete it['restartPolicy']],
    ['startupProbe', (it) => delete it['startupProbe']],
    ['resources', (it) => delete it['resources']],
    ['resources', (it) => ((it['resources'] as Json)['limits'] = { cpu: '1m', memory: '192Mi' })],
    ['resources', (it) => ((it['resources'] as Json)['claims'] = [{ name: 'x' }])],
    ['imagePullPolicy', (it) => (it['imagePullPolicy'] = 'Never')],
    ['stdin', (it) => (it['stdin'] = true)],
  ]
  for (const [field, change] of harmful)
    it(`is refused with a ${field} that is not ours: ${String(change).slice(8, 80)}`, () => {
      const { pod, sidecar } = injected()
      change(sidecar)
      expect(verdict(pod)).to.include(
        `spec.initContainers[0].${field} is not what Nestgate injects`,
      )
    })

  it('is refused twice over, and in the other list', () => {
    const twice = injected()
    ;(twice.spec['initContainers'] as Json[]).push(twice.sidecar)
    expect(verdict(twice.pod)).to.include('spec.initContainers[1] is a second nestgate-sidecar')
    expect(verdict(injected('container').pod)).to.include('spec.containers[0] is named')
  })

  it('is replaced where another webhook changed the users of the pod, and settles', () => {
    const users = [{ runAsUser: 1, runAsGroup: 1 }, { runAsUser: 2, runAsGroup: 3 }, {}]
    let pod: Json | undefined = injected().pod
    for (const securityContext of users) {
      ;(pod?.['spec'] as Json)['securityContext'] = securityContext
      const again = inject(pod ?? {})
      expect(again.reviewed.outcome).to.equal('patched')
      const [sidecar] = (again.pod?.['spec'] as Json)['initContainers'] as Json[]
      const fresh = inject({ spec: { containers: [{ name: 'a' }], securityContext } })
      const [expected] = (fresh.pod?.['spec'] as Json)['initContainers'] as Json[]
      expect(sidecar).to.deep.equal(expected)
      expect(inject(again.pod ?? {}).reviewed.outcome).to.equal('unchanged')
      pod = again.pod
    }
  })

  it('of another profile that is not all ours is refused', () => {
    const root = injected()
    root.spec['securityContext'] = { runAsUser: 1, runAsGroup: 1 }
    ;(root.sidecar['env'] as Json[]).push({ name: 'NODE_OPTIONS', value: '--inspect' })
    expect(verdict(root.pod)).to.include('spec.initContainers[0]')
  })

  it('comes to the front again where another injector has pushed it', () => {
    const { pod, spec } = injected()
    ;(spec['initContainers'] as Json[]).unshift({ name: 'mesh' })
    const { pod: again } = inject(pod)
    const names = ((again?.['spec'] as Json)['initContainers'] as Json[]).map((it) => it['name'])
    expect(names).to.deep.equal(['nestgate-sidecar', 'mesh'])
  })
})

describe('a reserved volume in the pod already', () => {
  const changes: readonly (readonly [string, (volumes: Json[]) => void])[] = [
    ['is refused twice', (volumes) => volumes.push({ ...volumes[0] })],
    [
      'is refused with another source',
      (volumes) => (volumes[0] = { name: 'nestgate-token', emptyDir: {} }),
    ],
    [
      'is refused with a member more',
      (volumes) => (volumes[1] = { ...volumes[1], hostPath: { path: '/' } }),
    ],
  ]
  for (const [what, change] of changes)
    it(what, () => {
      const { pod, spec } = injected()
      change(spec['volumes'] as Json[])
      expect(verdict(pod)).to.match(/spec\.volumes\[\d\] is/)
    })
})

describe('an annotation about the sidecar', () => {
  const key = 'container.seccomp.security.alpha.kubernetes.io/nestgate-sidecar'
  const annotated = (name: string, value: string): string => {
    const { pod } = injected()
    ;((pod['metadata'] as Json)['annotations'] as Json)[name] = value
    return verdict(pod)
  }

  it('is left alone where old API servers write the seccomp profile', () => {
    expect(annotated(key, 'runtime/default')).to.equal('unchanged')
  })

  it('is refused where it says anything else', () => {
    expect(annotated(key, 'unconfined')).to.contain('is about nestgate-sidecar')
    const other = 'container.apparmor.security.beta.kubernetes.io/nestgate-sidecar'
    expect(annotated(other, 'runtime/default')).to.contain('is about nestgate-sidecar')
  })
})
