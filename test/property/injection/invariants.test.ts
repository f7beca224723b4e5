/** Properties of the injection over hostile and odd pods, in a loop with the API server's own plugins. */
import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import { SIDECAR_NAME } from '../../../shared/injection/sidecar-spec.ts'
import { reviewPod } from '../../../shared/injection/review.ts'
import type { InjectionSettings, WantedLevel } from '../../../shared/injection/sidecar-spec.ts'
import { isRefusal } from '../../../shared/reasons.ts'
import { openWays } from '../../support/invariants.ts'
import { admit } from '../../support/pod-admission.ts'
import type { ClusterOptions, Era, Json } from '../../support/pod-admission.ts'
import { hostilePod, oddPod, restrictedPod } from '../../support/pod-generator.ts'
import { containersOf, itemsOf, plainPod } from '../../support/pods.ts'
import { PluginRefusal } from '../../support/service-account-plugin.ts'
import { SETTINGS, inject, reviewOf } from '../../support/reviews.ts'
import type { Outcome } from '../../support/reviews.ts'
import { applyStrictly } from './apply-patch.ts'
import { mutated, randomOf } from './mutate.ts'
import { restrictedViolations } from './pod-security.ts'

/** Runs of each property; more by `NESTGATE_PROPERTY_RUNS`. */
const RUNS = Number(process.env['NESTGATE_PROPERTY_RUNS'] ?? 250)

/** Longest time of one property, its shrinking included, in milliseconds. */
const LIMIT_MS = Number(process.env['NESTGATE_PROPERTY_MS'] ?? 8000)

/** What a test may take, the last run of a property included, in milliseconds. */
const TIMEOUT_MS = LIMIT_MS + 20_000

/** Every code that a pod may be refused with. */
const CODES = new Set([
  'container_privileges',
  'csi_driver',
  'host_ipc',
  'host_network',
  'host_path',
  'host_pid',
  'identity_level',
  'mirror_pod',
  'pod_certificate',
  'port_reserved',
  'reserved_name',
  'sidecar_user',
  'token_api_audience',
  'token_audience',
  'token_audience_not_allowed',
  'token_secret',
  'windows',
])

interface Cluster {
  readonly era: Era
  readonly options: ClusterOptions
  readonly settings: InjectionSettings
  readonly level: WantedLevel
}

const cluster: fc.Arbitrary<Cluster> = fc
  .record({
    era: fc.constantFrom<Era>('1.20', '1.33', '1.33'),
    mode: fc.constantFrom('native' as const, 'container' as const),
    allowedProfiles: fc.constantFrom<InjectionSettings['allowedProfiles']>(
      ['R', 'P', 'C'],
      ['R', 'C'],
      ['P', 'C'],
      ['C'],
    ),
    posture: fc.constantFrom('degrade', 'report', 'refuse'),
    dropNetRaw: fc.boolean(),
    level: fc.constantFrom<WantedLevel>('any', 'any', 'container', 'process'),
    alwaysPull: fc.boolean(),
    automount: fc.constantFrom(undefined, false),
  })
  .map(({ era, mode, level, alwaysPull, automount, ...rest }) => ({
    era,
    level,
    options: { alwaysPull, ...(automount === undefined ? {} : { automount }) },
    // A native sidecar exists on new servers only.
    settings: { ...SETTINGS, ...rest, mode: era === '1.20' ? 'container' : mode },
  }))

/** The pod as the plugins hand it on, or undefined where they refuse it. */
function received(
  pod: Json,
  { era, options }: Cluster,
  more: ClusterOptions = {},
): Json | undefined {
  try {
    return admit(pod, era, { ...options, ...more })
  } catch (error) {
    if (error instanceof PluginRefusal) return undefined
    throw error
  }
}

/** Reviews a pod and checks the patch itself: both readings of it give the same pod, and the same bytes come twice. */
function review(pod: Json, { settings, level }: Cluster): Outcome {
  const first = inject(pod, settings, {}, level)
  expect(inject(pod, settings, {}, level).reviewed.body).to.equal(first.reviewed.body)
  if (first.pod !== undefined) expect(applyStrictly(pod, first.patch)).to.deep.equal(first.pod)
  return first
}

/** The same of a value that may be no pod at all; nothing where the review is refused as such. */
function reviewAny(pod: unknown, { settings, level }: Cluster): { response?: Json; pod?: unknown } {
  const reviewed = reviewPod(Buffer.from(JSON.stringify(reviewOf(pod))), settings, level)
  if (isRefusal(reviewed)) return {}
  const { response } = JSON.parse(reviewed.body) as { response: Json }
  const patch = (response['patch'] ?? 'W10=') as string
  const operations = JSON.parse(Buffer.from(patch, 'base64').toString()) as []
  return { response, pod: applyStrictly(pod, operations) }
}

function assert<T extends [unknown, ...unknown[]]>(
  arbitraries: { [K in keyof T]: fc.Arbitrary<T[K]> },
  predicate: (...values: T) => void,
): void {
  fc.assert(fc.property(...arbitraries, predicate), {
    numRuns: RUNS,
    // Shrinking a pod of hundreds of containers could take minutes.
    interruptAfterTimeLimit: LIMIT_MS,
  })
}

describe('injection of hostile pods', function () {
  this.timeout(TIMEOUT_MS)
  it('leaves no way open, or refuses with a code of the closed set', () => {
    assert([hostilePod, cluster], ({ pod }, where) => {
      const before = received(pod, where)
      if (before === undefined) return
      const { pod: after, reviewed } = review(before, where)
      if (after === undefined) expect(CODES).to.include(reviewed.reason)
      else expect(openWays(after, where.settings)).to.deep.equal([])
    })
  })

  it('refuses every pod with an attack that is to be refused', () => {
    assert([hostilePod, cluster], ({ pod, attacks }, where) => {
      const codes = attacks.flatMap(({ code }) => code ?? [])
      const before = received(pod, where)
      if (before === undefined) return
      const { reviewed } = review(before, where)
      if (codes.length > 0) expect(reviewed.outcome).to.equal('denied')
    })
  })

  it('done again changes nothing, whatever the API server did between', () => {
    assert([hostilePod, cluster], ({ pod }, where) => {
      let last = received(pod, where)
      if (last === undefined) return
      const { pod: after } = review(last, where)
      if (after === undefined) return
      // Once more in the same admission, then as it was stored, on a cluster that pulls always.
      for (const more of [{}, { alwaysPull: true }]) {
        last = received(after, where, more) ?? {}
        const again = review(last, where)
        expect(again.reviewed.outcome).to.equal('unchanged')
        expect(again.patch).to.deep.equal([])
      }
    })
  })
})

describe('injection of pods that were injected, and changed since', function () {
  this.timeout(TIMEOUT_MS)
  // The author knows what ours looks like, from any pod that runs, and brings it along.
  const base = fc.oneof(hostilePod, fc.record({ pod: oddPod }), fc.constant({ pod: plainPod() }))

  it('leaves no way open, or refuses', () => {
    assert([fc.noShrink(base), fc.noShrink(cluster), fc.integer()], ({ pod }, where, seed) => {
      const before = received(pod, where)
      const { pod: after } = before === undefined ? {} : review(before, where)
      if (after === undefined) return
      const changed = mutated(after, randomOf(seed)) as Json
      const { response, pod: result } = reviewAny(changed, where)
      if (response?.['allowed'] !== true) return
      expect(openWays(result, where.settings)).to.deep.equal([])
      expect(reviewAny(result, where).response).to.not.have.property('patch')
    })
  })
})

describe('injection of odd pods', function () {
  this.timeout(TIMEOUT_MS)
  const plain: Cluster = { era: '1.33', options: {}, settings: SETTINGS, level: 'any' }

  it('takes every one of them', () => {
    assert(
      [oddPod, fc.constantFrom(plain, { ...plain, level: 'container' as const })],
      (pod, where) => {
        const { response } = review(received(pod, where) ?? {}, where)
        expect(response['status']).to.equal(undefined)
      },
    )
  })

  it('touches nothing that is not its own', () => {
    assert([oddPod, cluster], (pod, where) => {
      // As it was sent, with its nulls and empty lists, and as the plugins hand it on.
      for (const before of [pod, received(pod, where) ?? {}]) {
        const { pod: after } = review(before, where)
        if (after !== undefined) expectUntouched(before, after)
      }
    })
  })
})

describe('injection under Pod Security restricted', function () {
  this.timeout(TIMEOUT_MS)
  const ids = { runAsUser: 1000, runAsGroup: 1000 }
  const cases = [
    ['R', restrictedPod(ids), 'any'],
    ['C', restrictedPod({}), 'container'],
    ['C', restrictedPod(ids), 'container'],
  ] as const
  for (const [profile, pods, level] of cases)
    it(`keeps a restricted pod restricted in profile ${profile}`, () => {
      assert([pods, fc.constantFrom('native' as const, 'container' as const)], (pod, mode) => {
        expect(restrictedViolations(pod)).to.deep.equal([])
        const where: Cluster = { era: '1.33', options: {}, settings: { ...SETTINGS, mode }, level }
        const { pod: after, response } = review(received(pod, where) ?? {}, where)
        const given = (response['auditAnnotations'] as Json)['profile']
        // Containers with another user than the pod's are told apart by container, or by a root sidecar: not restricted.
        if (given !== profile) return
        expect(restrictedViolations(after ?? {})).to.deep.equal([])
      })
    })
})

const OWN_VOLUMES = ['nestgate-token', 'nestgate-kubeconfig', 'nestgate-serviceaccount']
const ROUTE = /^(KUBECONFIG|KUBERNETES_SERVICE_(HOST|PORT|PORT_HTTPS))$/

function without(value: unknown, ...keys: readonly string[]): unknown {
  if (typeof value !== 'object' || value === null) return {}
  return Object.fromEntries(Object.entries(value).filter(([key]) => !keys.includes(key)))
}

const isOwn = ({ name }: Json): boolean => OWN_VOLUMES.includes(String(name))
const isSidecar = ({ it: { name } }: { it: Json }): boolean => name === SIDECAR_NAME
const inAccount = ({ mountPath }: Json): boolean =>
  /^(\/var)?\/run\/secrets\/kubernetes\.io\/serviceaccount(\/|$)/.test(
    new URL(`/${String(mountPath)}`.replace(/\/+/g, '/'), 'file://').pathname,
  )

function expectUntouched(before: Json, after: Json): void {
  const were = containersOf(before)
  const are = containersOf(after).filter((it) => !isSidecar(it))
  expect(are.map(({ list }) => list)).to.deep.equal(were.map(({ list }) => list))
  const removed = itemsOf(before['spec'], 'volumes').filter(
    ({ name }) => !itemsOf(after['spec'], 'volumes').some((volume) => volume['name'] === name),
  )
  for (const [index, { it: was }] of were.entries()) expectSame(was, are[index]?.it ?? {}, removed)
  const left = itemsOf(before['spec'], 'volumes').filter((volume) => !removed.includes(volume))
  expect(itemsOf(after['spec'], 'volumes').filter((it) => !isOwn(it))).to.deep.equal(left)
  for (const volume of removed) {
    const isAutomounted =
      volume['secret'] !== undefined || JSON.stringify(volume).includes('serviceAccountToken')
    expect(isAutomounted).to.equal(true)
  }
  const ownKeys = ['containers', 'initContainers', 'volumes', 'securityContext']
  const set = ['automountServiceAccountToken', 'shareProcessNamespace', ...ownKeys]
  expect(without(after['spec'], ...set)).to.deep.equal(without(before['spec'], ...set))
  expect(contextOf(after)).to.deep.equal(contextOf(before))
  expect(without(after, 'metadata', 'spec')).to.deep.equal(without(before, 'metadata', 'spec'))
  expect(without(after['metadata'], 'annotations')).to.deep.equal(
    without(before['metadata'], 'annotations'),
  )
  expect(annotationsOf(after)).to.deep.equal(annotationsOf(before))
}

const contextOf = (pod: Json): unknown =>
  without((pod['spec'] as Json)['securityContext'], 'runAsUser', 'runAsGroup')

function annotationsOf(pod: Json): unknown {
  const names = ['status', 'kubeconfig'].map((name) => `nestgate.dev/${name}`)
  const annotations = ((pod['metadata'] ?? {}) as Json)['annotations']
  return without(annotations, ...names, 'kubectl.kubernetes.io/default-container')
}

/** An author's container: the same but for what clients are pointed at, the mounts of tokens, and NET_RAW. */
function expectSame(was: Json, is: Json, removed: readonly Json[]): void {
  const touched = ['env', 'volumeMounts', 'securityContext']
  expect(without(is, ...touched)).to.deep.equal(without(was, ...touched))
  const others = (it: Json): unknown =>
    itemsOf(it, 'env').filter(({ name }) => !ROUTE.test(String(name)))
  expect(others(is)).to.deep.equal(others(was))
  const gone = removed.map(({ name }) => name)
  expect(itemsOf(is, 'volumeMounts').filter((it) => !isOwn(it))).to.deep.equal(
    itemsOf(was, 'volumeMounts').filter((it) => !inAccount(it) && !gone.includes(it['name'])),
  )
  const [before, after] = [was, is].map((it) => (it['securityContext'] ?? {}) as Json)
  expect(without(after, 'capabilities')).to.deep.equal(without(before, 'capabilities'))
  const [had, has] = [before, after].map((it) => (it?.['capabilities'] ?? {}) as Json)
  expect(without(has, 'drop')).to.deep.equal(without(had, 'drop'))
  const dropped = (has?.['drop'] ?? []) as unknown[]
  const wasDropped = (had?.['drop'] ?? []) as unknown[]
  expect(dropped).to.deep.equal(
    dropped.length === wasDropped.length ? wasDropped : [...wasDropped, 'NET_RAW'],
  )
}
