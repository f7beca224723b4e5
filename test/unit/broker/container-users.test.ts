import { expect } from 'chai'
import { describe, it } from 'mocha'
import { containersByUser, podUsersSchema } from '../../../broker/identity/container-users.ts'

const FIXED = { allowPrivilegeEscalation: false }

type Context = Record<string, unknown> | undefined

function named(contexts: Record<string, Context>, more: object = {}): Record<string, string> {
  const containers = Object.entries(contexts).map(([name, securityContext]) => ({
    name,
    securityContext,
  }))
  const spec = podUsersSchema.parse({ containers, ...more })
  return Object.fromEntries(containersByUser(spec))
}

describe('containers by user', () => {
  it('names those whose users are their own and fixed', () => {
    const a = { runAsUser: 1001, ...FIXED }
    const b = { runAsUser: 1002, ...FIXED }
    expect(named({ a, b })).to.deep.equal({ 1001: 'a', 1002: 'b' })
  })

  it('takes the pod’s user where a container has none', () => {
    const pod = { securityContext: { runAsUser: 7 } }
    expect(named({ a: FIXED, b: { runAsUser: 8, ...FIXED } }, pod)).to.deep.equal({
      7: 'a',
      8: 'b',
    })
  })

  it('names a container that may become others, and none that it may become', () => {
    expect(named({ a: { runAsUser: 1001 }, b: { runAsUser: 1002, ...FIXED } })).to.deep.equal({
      1001: 'a',
    })
  })

  const others: [string, Context][] = [
    ['has the same user', { runAsUser: 1001, ...FIXED }],
    ['has whatever user its image says', FIXED],
    ['may run set-user-ID programs', { runAsUser: 1002 }],
    ['is root', { runAsUser: 0, ...FIXED }],
    [
      'is root without other capabilities',
      { runAsUser: 0, ...FIXED, capabilities: { drop: ['CHOWN'] } },
    ],
    ['may change its user', { runAsUser: 1002, ...FIXED, capabilities: { add: ['CAP_SETUID'] } }],
    [
      'is root and may still give its sockets away',
      { runAsUser: 0, ...FIXED, capabilities: { drop: ['SETUID', 'NET_RAW'] } },
    ],
    [
      'may give its sockets away',
      { runAsUser: 1002, ...FIXED, capabilities: { drop: ['ALL'], add: ['CHOWN'] } },
    ],
    [
      'may forge packets',
      { runAsUser: 1002, ...FIXED, capabilities: { drop: ['ALL'], add: ['net_raw'] } },
    ],
    ['is privileged', { runAsUser: 1002, ...FIXED, privileged: true }],
  ]
  for (const [name, b] of others)
    it(`names none while another container ${name}`, () => {
      expect(named({ a: { runAsUser: 1001, ...FIXED }, b })).not.to.have.property('1001')
    })

  it('names a container beside root that gave up each right to pass for another', () => {
    const drop = ['CAP_CHOWN', 'SETUID', 'NET_RAW']
    const root = { runAsUser: 0, ...FIXED, capabilities: { drop } }
    expect(named({ a: { runAsUser: 1001, ...FIXED }, root })).to.have.property('1001', 'a')
  })

  it('names a container beside root that cannot become anybody', () => {
    const root = { runAsUser: 0, ...FIXED, capabilities: { drop: ['ALL'] } }
    expect(named({ a: { runAsUser: 1001, ...FIXED }, root })).to.deep.equal({
      0: 'root',
      1001: 'a',
    })
  })

  it('counts init containers and those added later', () => {
    const twin = [{ name: 'twin', securityContext: { runAsUser: 1001, ...FIXED } }]
    const a = { runAsUser: 1001, ...FIXED }
    expect(named({ a }, { initContainers: twin })).to.deep.equal({})
    expect(named({ a }, { ephemeralContainers: twin })).to.deep.equal({})
  })
})
