/** The final state behind the injection: what it lets through has no way open, and it lets through what was injected. */
import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import { validate } from '../../../shared/injection/final/validate.ts'
import { isRefusal } from '../../../shared/reasons.ts'
import type { InjectionSettings, WantedLevel } from '../../../shared/injection/sidecar-spec.ts'
import { openWays } from '../../support/invariants.ts'
import { admit } from '../../support/pod-admission.ts'
import type { Json } from '../../support/pod-admission.ts'
import { oddPod } from '../../support/pod-generator.ts'
import { REFUSED, SIDECAR_USERS, itemsOf, plainPod } from '../../support/pods.ts'
import { SETTINGS, inject, reviewOf } from '../../support/reviews.ts'
import { mutated, randomOf } from './mutate.ts'

/** Longest time of a property, in milliseconds. */
const LIMIT_MS = 8000
const RUNS = Number(process.env['NESTGATE_PROPERTY_RUNS'] ?? 250)
const NOBODY = { users: [], groups: [] }
const MODES: readonly InjectionSettings[] = [SETTINGS, { ...SETTINGS, mode: 'container' }]
const LEVELS: readonly WantedLevel[] = ['any', 'container']

/** What the final state says to a review: nothing, a code, or that it is no review. */
function verdict(review: unknown, settings: InjectionSettings, level?: WantedLevel): string {
  const body = Buffer.from(JSON.stringify(review))
  const result = validate(body, settings, NOBODY, level)
  if (isRefusal(result)) return result.refused
  return result.reason ?? 'allowed'
}

/** The pod with ephemeral containers in it, as kubectl debug puts them in. */
function updated(before: Json, after: Json, subResource?: string): Json {
  return reviewOf(after, { operation: 'UPDATE', subResource, oldObject: before })
}

const modes = fc.constantFrom(...MODES)
const levels = fc.constantFrom(...LEVELS)

describe('the final state', function () {
  this.timeout(3 * LIMIT_MS)
  const bounds = { numRuns: RUNS, interruptAfterTimeLimit: LIMIT_MS }

  it('takes every pod as it was injected, and as the API server stores it', () => {
    const property = fc.property(oddPod, modes, levels, (odd, settings, level) => {
      const { pod } = inject(admit(odd, '1.33'), settings, {}, level)
      for (const stored of [pod ?? {}, admit(pod ?? {}, '1.33', { alwaysPull: true })]) {
        expect(verdict(reviewOf(stored), settings, level)).to.equal('allowed')
        expect(verdict(reviewOf(stored), settings)).to.equal('allowed')
      }
    })
    fc.assert(property, bounds)
  })

  it('lets through no pod with a way open, whatever was changed in it', () => {
    const property = fc.property(
      fc.noShrink(oddPod),
      modes,
      levels,
      fc.integer(),
      (odd, settings, level, seed) => {
        const { pod } = inject(admit(odd, '1.33'), settings, {}, level)
        const changed = mutated(pod, randomOf(seed))
        if (verdict(reviewOf(changed), settings) === 'allowed')
          expect(openWays(changed, settings)).to.deep.equal([])
      },
    )
    fc.assert(property, bounds)
  })

  for (const attack of [...REFUSED, ...SIDECAR_USERS])
    it(`refuses ${attack.row} in a pod that was injected: ${attack.name}`, () => {
      for (const settings of MODES) {
        const { pod } = inject(plainPod(), settings)
        attack.apply(pod ?? {})
        expect(verdict(reviewOf(pod), settings)).not.to.equal('allowed')
      }
    })
})

/** What the API server itself refuses in an ephemeral container, or has no meaning for a pod that runs already. */
const NOT_IN_EPHEMERAL = ['A19', 'A20']

describe('ephemeral containers', () => {
  const attacks = [...REFUSED, ...SIDECAR_USERS].filter(
    ({ row, name }) => name.endsWith('in ephemeralContainers') && !NOT_IN_EPHEMERAL.includes(row),
  )
  it('are attacked in many ways', () => {
    expect(attacks.length).to.be.greaterThan(15)
  })

  for (const attack of attacks)
    it(`are refused with ${attack.row}: ${attack.name}`, () => {
      for (const level of LEVELS) {
        const { pod: before = {} } = inject(plainPod(), SETTINGS, {}, level)
        const after = structuredClone(before)
        attack.apply(after)
        if (itemsOf(after['spec'], 'volumes').length > itemsOf(before['spec'], 'volumes').length)
          continue
        const review = updated(before, after, 'ephemeralcontainers')
        expect(verdict(review, SETTINGS)).not.to.equal('allowed')
      }
    })
})
