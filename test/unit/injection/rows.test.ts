/** Every row of the research's part A: what an author tries, and what the injector makes of it. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import type { InjectionSettings } from '../../../shared/injection/sidecar-spec.ts'
import { openWays } from '../../support/invariants.ts'
import type { Json } from '../../support/pod-admission.ts'
import { HARMLESS, REFUSED, REWRITTEN, SIDECAR_USERS, plainPod } from '../../support/pods.ts'
import type { Attack } from '../../support/pods.ts'
import { SETTINGS, inject } from '../../support/reviews.ts'

const CONTAINER: InjectionSettings = { ...SETTINGS, mode: 'container' }

function messageOf(response: Json): string {
  return (response['status'] as { message: string }).message
}

/** Injects the pod with the attack in it. */
function tried(attack: Attack, settings = SETTINGS): { field: string } & ReturnType<typeof inject> {
  const pod = plainPod()
  const field = attack.apply(pod)
  return { field, ...inject(pod, settings) }
}

describe('what is refused', () => {
  for (const attack of REFUSED)
    it(`${attack.row}: ${attack.name}: ${attack.code ?? ''}`, () => {
      for (const settings of [SETTINGS, CONTAINER]) {
        const { field, reviewed, response, pod } = tried(attack, settings)
        expect(reviewed.reason).to.equal(attack.code)
        expect(messageOf(response)).to.include(field)
        expect(pod).to.equal(undefined)
      }
    })
})

describe('what is rewritten', () => {
  for (const attack of REWRITTEN)
    it(`${attack.row}: ${attack.name}`, () => {
      for (const settings of [SETTINGS, CONTAINER]) {
        const { reviewed, pod } = tried(attack, settings)
        expect(reviewed.outcome).to.equal('patched')
        expect(openWays(pod, settings)).to.deep.equal([])
      }
    })
})

describe('what is nobody’s business', () => {
  for (const harmless of HARMLESS)
    it(`${harmless.row}: ${harmless.name}`, () => {
      const { reviewed, pod } = tried(harmless)
      expect(reviewed.reason).to.equal(undefined)
      expect(openWays(pod, SETTINGS)).to.deep.equal([])
    })
})

describe('the sidecar’s user', () => {
  for (const attack of SIDECAR_USERS)
    it(`${attack.row}: ${attack.name}: ${attack.code ?? ''}`, () => {
      const { field, reviewed, response } = tried(attack)
      expect(reviewed.reason).to.equal('sidecar_user')
      expect(messageOf(response)).to.include(field)
    })
})

describe('the oracle', () => {
  // The pod as it was left, and then the author, or another webhook, comes again.
  const late = [...REFUSED, ...SIDECAR_USERS]
  for (const attack of late)
    it(`sees ${attack.row} in a finished pod: ${attack.name}`, () => {
      for (const settings of [SETTINGS, CONTAINER]) {
        const level = attack.code === 'sidecar_user' ? 'container' : 'any'
        const { pod } = inject(plainPod(), settings, {}, level)
        expect(openWays(pod, settings)).to.deep.equal([])
        attack.apply(pod ?? {})
        const rows = openWays(pod, settings).map(({ row }) => row)
        expect(rows).to.include(attack.row)
      }
    })
})
