import { expect } from 'chai'
import { SETTINGS } from '../../support/reviews.ts'
import { describe, it } from 'mocha'
import { podSchema } from '../../../shared/injection/pod.ts'
import { dropsNetRaw, warningsFor } from '../../../shared/injection/risks.ts'
import type { Json } from '../../support/pod-admission.ts'

function podOf(container: Json): ReturnType<typeof podSchema.parse> {
  return podSchema.parse({ spec: { containers: [{ name: 'a', ...container }] } })
}

function withCapabilities(capabilities: Json): Json {
  return { securityContext: { capabilities } }
}

describe('risky containers', () => {
  const drops: [string, Json, boolean][] = [
    ['has what the runtime gives', {}, true],
    ['drops it', withCapabilities({ drop: ['NET_RAW'] }), false],
    ['drops it by its long name', withCapabilities({ drop: ['CAP_NET_RAW'] }), false],
    ['drops it in lower case', withCapabilities({ drop: ['net_raw'] }), false],
    ['drops all', withCapabilities({ drop: ['ALL'] }), false],
    ['drops others', withCapabilities({ drop: ['CHOWN'] }), true],
    ['asks for it', withCapabilities({ add: ['NET_RAW'] }), false],
    ['asks for all', withCapabilities({ add: ['ALL'] }), false],
    ['is privileged', { securityContext: { privileged: true } }, false],
  ]
  for (const [name, container, expected] of drops)
    it(`${expected ? 'takes NET_RAW from' : 'leaves as it is'} a container that ${name}`, () => {
      const [first] = podOf(container).spec.containers
      expect(dropsNetRaw(first!)).to.equal(expected)
    })

  const warned: [string, Json, boolean, RegExp | undefined][] = [
    ['nothing', {}, true, undefined],
    ['NET_RAW by default', {}, false, /NET_RAW \(by default\)/],
    ['NET_ADMIN', withCapabilities({ add: ['NET_ADMIN'] }), true, /NET_ADMIN/],
    ['SYS_PTRACE', withCapabilities({ add: ['CAP_SYS_PTRACE'] }), true, /SYS_PTRACE/],
    ['harmless additions', withCapabilities({ add: ['NET_BIND_SERVICE'] }), true, undefined],
    ['a privileged container', { securityContext: { privileged: true } }, true, /privileged/],
    ['a kubeconfig of its own', { env: [{ name: 'KUBECONFIG', value: '/k' }] }, true, /KUBECONFIG/],
    [
      'the kubeconfig that it has from us',
      { env: [{ name: 'KUBECONFIG', value: '/var/run/nestgate/config' }] },
      true,
      undefined,
    ],
    [
      'a mount that gives way',
      { volumeMounts: [{ name: 'a', mountPath: '/run/secrets/kubernetes.io/serviceaccount/' }] },
      true,
      /mounts a at/,
    ],
  ]
  for (const [name, container, dropNetRaw, expected] of warned)
    it(`${expected === undefined ? 'says nothing of' : 'warns of'} ${name}`, () => {
      const warnings = warningsFor(podOf(container), { ...SETTINGS, dropNetRaw }, new Set())
      expect(warnings).to.have.length(expected === undefined ? 0 : 1)
      if (expected !== undefined) expect(warnings[0]).to.match(expected)
      for (const warning of warnings) expect(warning.length).to.be.lessThan(257)
    })

  it('warns of a bounded number of containers', () => {
    const containers = Array.from({ length: 40 }, () => ({ securityContext: { privileged: true } }))
    const pod = podSchema.parse({ spec: { containers } })
    expect(warningsFor(pod, SETTINGS, new Set()).length).to.be.lessThan(10)
  })
})
