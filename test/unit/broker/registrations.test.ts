import { expect } from 'chai'
import { describe, it } from 'mocha'
import { createMatcher, registrationsSchema } from '../../../broker/identity/registrations.ts'
import type { ProcessFacts, Registration } from '../../../broker/identity/registrations.ts'

const SHA = 'a'.repeat(64)
const FACTS: ProcessFacts = {
  pod: {
    cluster: 'prod',
    namespace: 'agents',
    serviceAccount: 'worker',
    podName: 'pod-1',
    podUid: 'uid-1',
  },
  exe: '/usr/bin/python3.11',
  sha256: SHA,
  uid: 1000,
  containerId: 'c'.repeat(64),
  container: {
    name: 'scanner',
    image: 'registry.example/agents/scanner@sha256:1',
    images: ['registry.example/agents/scanner@sha256:1', 'registry.example/agents/scanner:1.2'],
  },
}

type Selectors = Registration['match']

describe('a registration', () => {
  /** selectors, changed facts, whether they match */
  const rows: readonly (readonly [Selectors, Partial<ProcessFacts>, boolean])[] = [
    [{ clusters: ['prod', 'x'] }, {}, true],
    [{ clusters: ['pro'] }, {}, false],
    [{ namespaces: ['agents'] }, {}, true],
    [{ namespaces: ['agent*'] }, {}, false],
    [{ serviceAccounts: ['agents/worker'] }, {}, true],
    [{ serviceAccounts: ['*/worker'] }, {}, true],
    [{ serviceAccounts: ['agents/*'] }, {}, true],
    [{ serviceAccounts: ['other/worker', 'agents/other'] }, {}, false],
    [{ containers: ['scanner'] }, {}, true],
    [{ containers: ['scan*'] }, {}, true],
    [{ containers: ['scan'] }, {}, false],
    [{ images: ['registry.example/agents/scanner:*'] }, {}, true],
    [{ images: ['registry.example/agents/scanner@sha256:1'] }, {}, true],
    [{ images: ['registry.example/*'] }, {}, false],
    [{ images: ['registry.example/**'] }, {}, true],
    [{ images: ['**/scanner:2*'] }, {}, false],
    [{ executables: ['/usr/bin/python3*'] }, {}, true],
    [{ executables: ['/usr/*'] }, {}, false],
    [{ executables: ['/usr/**'] }, { exe: '/usr/a\nb/c' }, true],
    [{ executables: ['/usr/bin/python3.11'] }, { exe: '/usr/bin/python3x11' }, false],
    [{ executables: ['**'] }, { exe: undefined }, false],
    [{ sha256: [SHA] }, {}, true],
    [{ sha256: [SHA] }, { sha256: 'b'.repeat(64) }, false],
    [{ sha256: [SHA] }, { sha256: undefined }, false],
    [{ uids: [0, 1000] }, {}, true],
    [{ uids: [0] }, {}, false],
    [{ uids: [0] }, { uid: undefined }, false],
    [{ containers: ['*'] }, { containerId: undefined, container: undefined }, false],
    [{ images: ['**'] }, { containerId: undefined, container: undefined }, false],
    [{ containers: ['scanner'], executables: ['/usr/bin/*'], uids: [1000] }, {}, true],
    [{ containers: ['scanner'], executables: ['/usr/bin/*'], uids: [1] }, {}, false],
    [{ containers: ['other'], executables: ['/usr/bin/*'] }, {}, false],
  ]
  for (const [match, changed, expected] of rows) {
    const what = `${JSON.stringify(match)} ${JSON.stringify(changed)}`
    it(`${expected ? 'matches' : 'does not match'}: ${what}`, () => {
      const found = createMatcher([{ name: 'it', match }])({ ...FACTS, ...changed })
      expect(found).to.deep.equal(expected ? { kind: 'registered', name: 'it' } : { kind: 'none' })
    })
  }

  it('counts before those after it', () => {
    const matcher = createMatcher([
      { name: 'exact', match: { sha256: [SHA] } },
      { name: 'rough', match: { executables: ['/usr/bin/*'] } },
    ])
    expect(matcher(FACTS)).to.include({ name: 'exact' })
    expect(matcher({ ...FACTS, sha256: undefined })).to.include({ name: 'rough' })
  })

  it('is not passed over while the container that it asks for has no name yet', () => {
    const matcher = createMatcher([
      { name: 'other-program', match: { containers: ['x'], executables: ['/x'] } },
      { name: 'careful', match: { containers: ['untrusted'] } },
      { name: 'trusted', match: { namespaces: ['agents'] } },
    ])
    expect(matcher({ ...FACTS, container: undefined })).to.deep.equal({ kind: 'undecided' })
    expect(matcher(FACTS)).to.include({ name: 'trusted' })
  })
})

describe('registrations in the configuration', () => {
  const bad: readonly (readonly [string, object])[] = [
    ['a name of ours', { name: 'unregistered', match: { uids: [1] } }],
    ['a name that begins as ours', { name: 'unregistered/a/b', match: { uids: [1] } }],
    ['a name with capitals', { name: 'Scanner', match: { uids: [1] } }],
    ['a name with a line break', { name: 'scanner\n', match: { uids: [1] } }],
    ['no selectors', { name: 'a', match: {} }],
    ['an empty selector', { name: 'a', match: { uids: [] } }],
    ['an unknown selector', { name: 'a', match: { argv: ['x'] } }],
    ['a selector on the environment', { name: 'a', match: { agentNames: ['x'] } }],
    ['a digest that is none', { name: 'a', match: { sha256: ['AB'] } }],
    ['a user id that is none', { name: 'a', match: { uids: [-1] } }],
    ['a bare account', { name: 'a', match: { serviceAccounts: ['worker'] } }],
  ]
  for (const [what, registration] of bad) {
    it(`are refused with ${what}`, () => {
      expect(registrationsSchema.safeParse([registration]).success).to.equal(false)
    })
  }

  it('may give one name twice: any of the two suffices', () => {
    const both = [
      { name: 'a', match: { uids: [1] } },
      { name: 'a', match: { uids: [2] } },
    ]
    expect(registrationsSchema.safeParse(both).success).to.equal(true)
  })
})
