/** Whatever is injected is let through by the final state; and what the validating webhook refuses, the admission policies refuse. */
import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import { validate } from '../../../shared/injection/final/validate.ts'
import { SIDECAR_NAME } from '../../../shared/injection/sidecar-spec.ts'
import type { InjectionSettings, WantedLevel } from '../../../shared/injection/sidecar-spec.ts'
import { isRefusal } from '../../../shared/reasons.ts'
import { FINAL_SETTINGS, NAMESPACE } from '../../support/final-cases.ts'
import { judge, policies } from '../../support/final-policies.ts'
import { admit } from '../../support/pod-admission.ts'
import type { Json } from '../../support/pod-admission.ts'
import { hostilePod, oddPod } from '../../support/pod-generator.ts'
import { PluginRefusal } from '../../support/service-account-plugin.ts'
import { inject, reviewOf } from '../../support/reviews.ts'
import { mutated, randomOf } from './mutate.ts'

/** Runs of each property; more by `NESTGATE_PROPERTY_RUNS`. */
const RUNS = Number(process.env['NESTGATE_PROPERTY_RUNS'] ?? 150)
/** Longest time of one property, its shrinking included, in milliseconds. */
const LIMIT_MS = Number(process.env['NESTGATE_PROPERTY_MS'] ?? 8000)
const OPTIONS = { numRuns: RUNS, interruptAfterTimeLimit: LIMIT_MS }
const NOBODY = { users: [], groups: [] }

const clusters = fc.record({
  mode: fc.constantFrom('native' as const, 'container' as const),
  level: fc.constantFrom<WantedLevel>('any', 'container'),
})
const anyPod = fc.oneof(
  oddPod,
  hostilePod.map(({ pod }) => pod),
)

/** The pod as it would be stored, or undefined where it is refused before. */
function stored(pod: Json, settings: InjectionSettings, level: WantedLevel): Json | undefined {
  try {
    const { pod: result } = inject(admit(pod, '1.33'), settings, { namespace: NAMESPACE }, level)
    return result
  } catch (error) {
    if (error instanceof PluginRefusal) return undefined
    throw error
  }
}

/** What the validating webhook says: a message, or undefined. */
function webhookSays(
  pod: Json,
  settings: InjectionSettings,
  level: WantedLevel,
): string | undefined {
  const body = Buffer.from(JSON.stringify(reviewOf(pod, { namespace: NAMESPACE })))
  const result = validate(body, settings, NOBODY, level)
  if (isRefusal(result)) return result.refused
  const { response } = JSON.parse(result.body) as { response: { status?: { message: string } } }
  return response.status?.message
}

/** What the policy for pods says: a message, or undefined; an error is a refusal there. */
function policySays(object: Json, level: WantedLevel): string | undefined {
  const policy = policies.find(({ metadata }) => metadata.name === 'nestgate-pods')
  if (policy === undefined) throw new Error('no policy')
  try {
    return judge(policy, { name: '', operation: 'CREATE', resource: 'pods', object, level })
  } catch (error) {
    return `error: ${String(error)}`
  }
}

/** Those of the sidecar but for the broker's authority, which the policy does not know. */
function sidecarVariables(pod: Json): string {
  const { initContainers = [], containers = [] } = pod['spec'] as Record<string, Json[]>
  const sidecar = [...initContainers, ...containers].find(({ name }) => name === SIDECAR_NAME)
  const env = (sidecar?.['env'] ?? []) as Json[]
  return JSON.stringify(env.filter(({ name }) => name !== 'NESTGATE_BROKER_CA_PEM'))
}

describe('the final state of generated pods', function () {
  this.timeout(3 * LIMIT_MS)

  it('is right for whatever was injected', () => {
    fc.assert(
      fc.property(anyPod, clusters, (pod, { mode, level }) => {
        const settings = { ...FINAL_SETTINGS, mode }
        const result = stored(pod, settings, level)
        if (result === undefined) return
        expect(webhookSays(result, settings, level)).to.equal(undefined)
        const said = policySays(result, level)
        // A pod without what every pod has: Kubernetes' own validation comes before.
        if (said?.startsWith('error: ') !== true) expect(said).to.equal(undefined)
      }),
      OPTIONS,
    )
  })

  it('is wrong for whatever was not', () => {
    fc.assert(
      fc.property(anyPod, clusters, (pod, { level }) => {
        expect(policySays(pod, level)).to.not.equal(undefined)
      }),
      OPTIONS,
    )
  })

  it('is refused by the policies where it is by the webhook', () => {
    fc.assert(
      fc.property(anyPod, clusters, fc.integer(), (pod, { mode, level }, seed) => {
        const settings = { ...FINAL_SETTINGS, mode }
        const result = stored(pod, settings, level)
        if (result === undefined) return
        const changed = mutated(result, randomOf(seed)) as Json
        // No pod is created with them (kubernetes, pkg/apis/core/validation, ValidatePodCreate).
        delete (changed['spec'] as Json | undefined)?.['ephemeralContainers']
        const refusal = webhookSays(changed, settings, level)
        // What is no pod of the API server's never comes so far.
        if (refusal === undefined || refusal === 'review_invalid') return
        // No way to a credential, and the cluster's business: docs/final-state.md.
        if (refusal.includes('.resources is not what Nestgate injects')) return
        if (
          sidecarVariables(changed) === sidecarVariables(result) &&
          refusal.includes('.env is not')
        )
          return
        expect(policySays(changed, level), refusal).to.not.equal(undefined)
      }),
      OPTIONS,
    )
  })
})
