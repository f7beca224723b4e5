/** Pods that are made to keep the webhook busy: refused before they cost anything, and bounded in what they cost below that. */
import { performance } from 'node:perf_hooks'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { isRefusal } from '../../../shared/reasons.ts'
import { reviewPod } from '../../../shared/injection/review.ts'
import type { Purpose } from '../../../shared/injection/review.ts'
import { MAX_CONTAINERS, MAX_ENTRIES } from '../../../shared/injection/size.ts'
import { SERVICE_ACCOUNT_PATH } from '../../../shared/injection/sidecar-spec.ts'
import type { Json } from '../../support/pod-admission.ts'
import { SETTINGS, reviewOf } from '../../support/reviews.ts'

/** What the API server waits (webhook.timeoutSeconds of the chart), in milliseconds. */
const TIMEOUT_MS = 5_000

const many = (count: number, entry: Json): Json[] => Array.from({ length: count }, () => entry)
const container = (more: Json = {}): Json => ({ name: 'web', image: 'web', ...more })
const podOf = (spec: Json, annotations: Json = {}): Json => ({
  metadata: { name: 'large', annotations },
  spec: { containers: [container()], ...spec },
})

function reviewed(pod: Json, purpose: Purpose = 'enforce'): { outcome: string; ms: number } {
  const body = Buffer.from(JSON.stringify(reviewOf(pod)))
  const start = performance.now()
  const result = reviewPod(body, SETTINGS, 'any', purpose)
  const ms = performance.now() - start
  if (isRefusal(result)) throw new Error(`${result.refused}: ${result.detail ?? ''}`)
  return { outcome: `${result.outcome} ${result.reason ?? ''}`.trim(), ms }
}

describe('the size of a pod', () => {
  const mount = { name: 'a', mountPath: `${SERVICE_ACCOUNT_PATH}/` }
  const tooLarge: readonly (readonly [string, Json])[] = [
    ['containers', podOf({ containers: many(20_000, container()) })],
    ['init containers', podOf({ initContainers: many(MAX_CONTAINERS, container()) })],
    [
      'variables that go among variables that stay',
      podOf({
        containers: [
          container({
            env: [...many(20_000, { name: 'KUBECONFIG' }), ...many(25_000, { name: 'A' })],
          }),
        ],
      }),
    ],
    ['mounts', podOf({ containers: [container({ volumeMounts: many(MAX_ENTRIES + 1, mount) })] })],
    ['volumes', podOf({ volumes: many(MAX_ENTRIES + 1, { name: 'a', emptyDir: {} }) })],
    [
      'capabilities',
      podOf({
        containers: [
          container({
            securityContext: {
              capabilities: { add: Array.from({ length: MAX_ENTRIES + 1 }, () => 'CHOWN') },
            },
          }),
        ],
      }),
    ],
    [
      'annotations',
      podOf(
        {},
        Object.fromEntries(
          Array.from({ length: MAX_ENTRIES + 1 }, (_, index) => [`k${index}`, '']),
        ),
      ),
    ],
  ]
  for (const [what, pod] of tooLarge) {
    it(`is refused at once where there are too many ${what}`, () => {
      const { outcome, ms } = reviewed(pod)
      expect(outcome).to.equal('denied pod_too_large')
      expect(ms).to.be.below(TIMEOUT_MS)
      expect(reviewed(pod, 'observe').outcome).to.equal('observed pod_too_large')
    })
  }

  it('takes the largest pods that are not refused well below the API server’s patience', () => {
    const half = MAX_ENTRIES / 2 - 10
    const env = [...many(half, { name: 'KUBECONFIG' }), ...many(half, { name: 'A' })]
    const each = { env: many(14, { name: 'KUBECONFIG' }), volumeMounts: many(14, mount) }
    for (const containers of [[container({ env })], many(MAX_CONTAINERS, container(each))]) {
      const { outcome, ms } = reviewed(podOf({ containers }))
      expect(outcome).to.equal('patched')
      expect(ms).to.be.below(TIMEOUT_MS)
    }
  })
})
