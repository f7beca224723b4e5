/** Properties of the injection over pods that nobody thought of: generated specs, passed through the API server's own plugins. */
import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import { BROKER_AUDIENCE } from '../../shared/agent-tag.ts'
import {
  KUBECONFIG_VOLUME,
  SERVICE_ACCOUNT_PATH,
  SIDECAR_NAME,
  TOKEN_VOLUME,
  serviceAccountMount,
} from '../../shared/injection/sidecar-spec.ts'
import type { SidecarMode } from '../../shared/injection/sidecar-spec.ts'
import { admit } from '../support/pod-admission.ts'
import type { Era, Json } from '../support/pod-admission.ts'
import { SETTINGS, inject } from '../support/reviews.ts'

const volumeNames = ['a', 'b', 'c', 'kube-api-access-x', 'default-token-x8f2k'] as const
const audiences = [undefined, '', 'https://kubernetes.default.svc', 'sts.example', 'vault'] as const
const paths = ['/x', SERVICE_ACCOUNT_PATH, `${SERVICE_ACCOUNT_PATH}/token`, '/var/run/x'] as const

const optional = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.option(arbitrary, { nil: undefined })
const id = optional(fc.constantFrom(0, 1000, 1001))
const securityContext = optional(
  fc.record({ runAsUser: id, runAsGroup: id, runAsNonRoot: optional(fc.boolean()) }),
)
const mount = fc.record({
  name: fc.constantFrom(...volumeNames),
  mountPath: fc.constantFrom(...paths),
})
const variable = fc.record({
  name: fc.constantFrom('KUBECONFIG', 'LANG', 'PATH', ''),
  value: optional(fc.string()),
})
const container = fc.record(
  {
    name: optional(fc.constantFrom('agent', 'tool', '')),
    env: optional(fc.array(variable, { maxLength: 4 })),
    volumeMounts: optional(fc.array(mount, { maxLength: 4 })),
    securityContext,
    unknown: fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 2 }),
  },
  { requiredKeys: [] },
)
const source = fc.oneof(
  fc.record({ serviceAccountToken: fc.record({ audience: fc.constantFrom(...audiences) }) }),
  fc.constant({ configMap: { name: 'kube-root-ca.crt' } }),
)
const volume = fc
  .tuple(
    fc.constantFrom(...volumeNames),
    fc.oneof(
      fc.array(source, { maxLength: 3 }).map((sources) => ({ projected: { sources } })),
      fc.constant({ emptyDir: {} }),
      fc.constant({ secret: { secretName: 'plain' } }),
    ),
  )
  .map(([name, rest]) => ({ name, ...rest }))
const pod = fc
  .record({
    metadata: fc.record({
      name: optional(fc.string()),
      annotations: optional(fc.dictionary(fc.string(), fc.string(), { maxKeys: 3 })),
      labels: fc.dictionary(fc.string(), fc.string(), { maxKeys: 2 }),
    }),
    spec: fc.record({
      containers: fc.array(container, { minLength: 1, maxLength: 3 }),
      initContainers: optional(fc.array(container, { maxLength: 2 })),
      volumes: optional(fc.array(volume, { maxLength: 4 })),
      securityContext,
      automountServiceAccountToken: optional(fc.boolean()),
      unknown: fc.jsonValue({ maxDepth: 3 }),
    }),
  })
  .map((value) => JSON.parse(JSON.stringify(value)) as Json)
const era = fc.constantFrom<Era>('1.20', '1.33')

/** What an author asked for by name is refused, not taken out. */
const WANTED_TOKENS = ['token_api_audience', 'token_secret'] as const

/** A native sidecar exists on new servers only. */
const modesOf = (which: Era): readonly SidecarMode[] =>
  which === '1.20' ? ['container'] : ['native', 'container']

function lists(value: Json, name: string): Json[] {
  return ((value['spec'] as Json)[name] ?? []) as Json[]
}

function containersOf(value: Json): Json[] {
  return [...lists(value, 'initContainers'), ...lists(value, 'containers')]
}

function without(value: unknown, ...names: readonly string[]): Json {
  return Object.fromEntries(
    Object.entries((value ?? {}) as Json).filter(([name]) => !names.includes(name)),
  )
}

const OWN_ANNOTATION = /^(nestgate\.dev\/|kubectl\.kubernetes\.io\/default-container$)/

function isClientVariable(entry: Json): boolean {
  return entry['name'] === 'KUBECONFIG' || String(entry['name']).startsWith('KUBERNETES_SERVICE_')
}

/** What the webhook may not touch, of a pod and of each container but the sidecar. */
function untouched(value: Json): unknown {
  const metadata = value['metadata'] as Json
  const spec = value['spec'] as Json
  const containers = containersOf(value)
    .filter((it) => it['name'] !== SIDECAR_NAME)
    .map((it) => ({
      ...without(it, 'volumeMounts', 'securityContext'),
      env: ((it['env'] ?? []) as Json[]).filter((entry) => !isClientVariable(entry)),
      context: without(it['securityContext'], 'capabilities'),
    }))
  return {
    metadata: without(metadata, 'annotations'),
    annotations: Object.entries((metadata['annotations'] ?? {}) as Json).filter(
      ([key]) => !OWN_ANNOTATION.test(key),
    ),
    containers,
    context: without(spec['securityContext'], 'runAsUser', 'runAsGroup'),
    spec: without(
      spec,
      'automountServiceAccountToken',
      'shareProcessNamespace',
      'securityContext',
      'containers',
      'initContainers',
      'volumes',
    ),
  }
}

describe('injection', () => {
  function check(predicate: (received: Json, injected: Json, again: () => Json) => void): void {
    fc.assert(
      fc.property(pod, era, (written, which) => {
        const received = admit(written, which)
        for (const mode of modesOf(which)) {
          const settings = { ...SETTINGS, mode }
          const { pod: injected, reviewed } = inject(received, settings)
          if (injected === undefined) {
            expect(reviewed.reason).to.be.oneOf(WANTED_TOKENS)
            continue
          }
          predicate(received, injected, () => {
            const admitted = admit(injected, which)
            const { pod: second, patch } = inject(admitted, settings)
            expect(patch).to.deep.equal([])
            return second ?? {}
          })
        }
      }),
      { numRuns: 300 },
    )
  }

  it('done again changes nothing, whatever the API server did between', () => {
    check((_received, injected, again) => {
      expect(untouched(again())).to.deep.equal(untouched(injected))
    })
  })

  it('leaves what is not ours as it was', () => {
    check((received, injected) => {
      expect(untouched(injected)).to.deep.equal(untouched(received))
    })
  })

  it('leaves no token that the API server would take, and ours in the sidecar only', () => {
    check((_received, injected) => {
      const projections = lists(injected, 'volumes').flatMap(
        (it) => (((it['projected'] ?? {}) as Json)['sources'] ?? []) as Json[],
      )
      const tokens = projections.flatMap((it) => (it['serviceAccountToken'] ?? []) as Json | [])
      const kinds = tokens.map((it) => (it as Json)['audience'])
      expect(kinds.filter((it) => it === BROKER_AUDIENCE)).to.have.length(1)
      for (const kind of kinds) expect(kind).to.be.oneOf([BROKER_AUDIENCE, 'sts.example', 'vault'])
      for (const it of containersOf(injected)) {
        const mounts = (it['volumeMounts'] ?? []) as Json[]
        const own = it['name'] === SIDECAR_NAME
        const names = mounts.map((entry) => entry['name'])
        expect(names.includes(TOKEN_VOLUME)).to.equal(own)
        expect(names.includes(KUBECONFIG_VOLUME)).to.equal(!own)
        const there = mounts.filter(({ mountPath }) =>
          String(mountPath).includes(SERVICE_ACCOUNT_PATH),
        )
        expect(there).to.deep.equal(own ? [] : [serviceAccountMount()])
      }
    })
  })

  it('leaves every container with one KUBECONFIG, ours', () => {
    check((_received, injected) => {
      for (const it of containersOf(injected)) {
        if (it['name'] === SIDECAR_NAME) continue
        const found = ((it['env'] ?? []) as Json[]).filter(
          (entry) => entry['name'] === 'KUBECONFIG',
        )
        expect(found).to.deep.equal([{ name: 'KUBECONFIG', value: '/var/run/nestgate/config' }])
      }
    })
  })
})
