/**
 * Other mutating webhooks beside ours, before and after it, with the re-invocation that `reinvocationPolicy: IfNeeded` gives: whatever
 * they do, the pod ends as injection leaves it, or it is refused; by the webhook where it is asked again, by the final state else.
 */
import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import type { InjectionSettings } from '../../../shared/injection/sidecar-spec.ts'
import { openWays } from '../../support/invariants.ts'
import { admit } from '../../support/pod-admission.ts'
import type { Json } from '../../support/pod-admission.ts'
import { oddPod } from '../../support/pod-generator.ts'
import { SA_PATH, containersOf, listIn, objectIn, plainPod } from '../../support/pods.ts'
import { SETTINGS, inject } from '../../support/reviews.ts'

/** Longest time of a property, in milliseconds. */
const LIMIT_MS = 8000

/** What another webhook does to every pod that it sees. */
interface Other {
  readonly name: string
  readonly change: (pod: Json) => void
  /** What it must come to on a plain pod when it runs behind ours; undefined: that depends on the mode. */
  readonly outcome?: 'admitted' | 'refused'
}

const specOf = (pod: Json): Json => objectIn(pod, 'spec')
const each = (pod: Json, change: (container: Json) => void): void => {
  for (const { it } of containersOf(pod)) change(it)
}
/** Adds what is not there yet, as a webhook that may be called twice has to. */
function once(list: Json[], entry: Json, where: 'first' | 'last'): void {
  if (list.some(({ name }) => name === entry['name'])) return
  if (where === 'first') list.unshift(structuredClone(entry))
  else list.push(structuredClone(entry))
}

const proxy: Json = { name: 'mesh-proxy', image: 'mesh.example/p:1' }
const token: Json = {
  name: 'mesh-token',
  projected: { sources: [{ serviceAccountToken: { path: 'token' } }] },
}

const OTHERS: readonly Other[] = [
  { name: 'does nothing', change: () => undefined, outcome: 'admitted' },
  {
    name: 'drops restartPolicy of init containers, which it does not know',
    change: (pod) => {
      for (const it of listIn(specOf(pod), 'initContainers'))
        Reflect.deleteProperty(it, 'restartPolicy')
    },
  },
  {
    name: 'appends an init container',
    change: (pod) => {
      once(listIn(specOf(pod), 'initContainers'), proxy, 'last')
    },
    outcome: 'admitted',
  },
  {
    name: 'puts a native sidecar first',
    change: (pod) => {
      const first = { ...proxy, restartPolicy: 'Always' }
      once(listIn(specOf(pod), 'initContainers'), first, 'first')
    },
    outcome: 'admitted',
  },
  {
    name: 'puts a container first',
    change: (pod) => {
      once(listIn(specOf(pod), 'containers'), proxy, 'first')
    },
    outcome: 'admitted',
  },
  {
    name: 'appends a container that wants a token and a kubeconfig',
    change: (pod) => {
      const it = {
        ...proxy,
        env: [{ name: 'KUBECONFIG', value: '/mesh' }],
        volumeMounts: [{ name: 'mesh-token', mountPath: SA_PATH }],
      }
      once(listIn(specOf(pod), 'containers'), it, 'last')
      once(listIn(specOf(pod), 'volumes'), token, 'last')
    },
    outcome: 'admitted',
  },
  {
    name: 'mounts an API token of its own elsewhere',
    change: (pod) => {
      const it = { ...proxy, volumeMounts: [{ name: 'mesh-token', mountPath: '/mesh' }] }
      once(listIn(specOf(pod), 'containers'), it, 'last')
      once(listIn(specOf(pod), 'volumes'), token, 'last')
    },
    outcome: 'refused',
  },
  {
    name: 'wants the token mounted after all',
    change: (pod) => {
      specOf(pod)['automountServiceAccountToken'] = true
    },
    // The ServiceAccount plugin, which runs again before us, mounts it into the sidecar.
    outcome: 'refused',
  },
  {
    name: 'points every container elsewhere, ours too',
    change: (pod) => {
      each(pod, (it) => {
        listIn(it, 'env').push({ name: 'KUBECONFIG', value: '/other' })
      })
    },
    outcome: 'refused',
  },
  {
    name: 'gives every container a variable, as cloud identities do',
    change: (pod) => {
      each(pod, (it) => {
        once(listIn(it, 'env'), { name: 'AWS_REGION', value: 'eu' }, 'last')
      })
    },
    outcome: 'refused',
  },
  {
    name: 'takes our volumes away',
    change: (pod) => {
      const volumes = listIn(specOf(pod), 'volumes')
      specOf(pod)['volumes'] = volumes.filter(({ name }) => !String(name).startsWith('nestgate-'))
    },
    outcome: 'admitted',
  },
  {
    name: 'takes our sidecar away',
    change: (pod) => {
      for (const list of ['initContainers', 'containers'])
        specOf(pod)[list] = listIn(specOf(pod), list).filter(
          ({ name }) => name !== 'nestgate-sidecar',
        )
    },
    outcome: 'admitted',
  },
  {
    name: 'takes our annotations away',
    change: (pod) => {
      objectIn(pod, 'metadata')['annotations'] = {}
    },
    outcome: 'admitted',
  },
  {
    name: 'turns the lists round',
    change: (pod) => {
      for (const list of ['initContainers', 'containers', 'volumes'])
        listIn(specOf(pod), list).reverse()
    },
    outcome: 'admitted',
  },
  {
    name: 'rewrites images',
    change: (pod) => {
      each(pod, (it) => (it['image'] = `mirror.example/${String(it['image'])}`))
    },
    outcome: 'refused',
  },
  {
    name: 'shares the process namespace, or not',
    change: (pod) => {
      specOf(pod)['shareProcessNamespace'] = specOf(pod)['shareProcessNamespace'] !== true
    },
    outcome: 'admitted',
  },
  {
    name: 'wants the node’s network',
    change: (pod) => {
      specOf(pod)['hostNetwork'] = true
    },
    outcome: 'refused',
  },
  {
    name: 'sets one user for the pod, so that another profile would do',
    change: (pod) => {
      specOf(pod)['securityContext'] = { runAsUser: 1000, runAsGroup: 1000 }
    },
  },
]

const MODES: readonly InjectionSettings[] = [SETTINGS, { ...SETTINGS, mode: 'container' }]

/** What an API server with another webhook before or behind ours makes of a pod; undefined where it is refused. */
function create(
  sent: Json,
  other: Other,
  behind: boolean,
  settings: InjectionSettings,
): Json | undefined {
  let pod = sent
  // The chain runs once, and once more where something changed; a webhook may be called again then, no third time.
  for (const round of [1, 2]) {
    pod = admit(pod, '1.33')
    if (!behind) other.change(pod)
    const { pod: injected } = inject(pod, settings)
    if (injected === undefined) return undefined
    pod = injected
    if (behind && round === 1) other.change(pod)
  }
  return pod
}

describe('another webhook', function () {
  this.timeout(2 * LIMIT_MS)
  for (const other of OTHERS)
    it(`that ${other.name} ends in an injected pod, or in a refusal`, () => {
      for (const settings of MODES) {
        const pod = create(plainPod(), other, true, settings)
        if (other.outcome !== undefined)
          expect(pod === undefined ? 'refused' : 'admitted', settings.mode).to.equal(other.outcome)
        if (pod !== undefined) expect(openWays(pod, settings)).to.deep.equal([])
        const early = create(plainPod(), other, false, settings)
        if (early !== undefined) expect(openWays(early, settings)).to.deep.equal([])
      }
    })

  it('leaves nothing open on any pod, first or last', () => {
    const property = fc.property(
      oddPod,
      fc.constantFrom(...OTHERS),
      fc.boolean(),
      fc.constantFrom(...MODES),
      (odd, other, behind, settings) => {
        const pod = create(odd, other, behind, settings)
        if (pod === undefined) return
        expect(openWays(pod, settings)).to.deep.equal([])
        expect(inject(admit(pod, '1.33'), settings).reviewed.outcome).to.equal('unchanged')
      },
    )
    fc.assert(property, { numRuns: 250, interruptAfterTimeLimit: LIMIT_MS })
  })

  it('that has the last word is found out by the final state', () => {
    for (const other of OTHERS)
      for (const settings of MODES) {
        const pod = create(plainPod(), other, false, settings)
        if (pod === undefined) continue
        other.change(pod)
        const ways = openWays(pod, settings)
        // A pod is right when injecting it again changes nothing.
        const { outcome } = inject(pod, settings).reviewed
        if (ways.length > 0) expect(outcome, other.name).not.to.equal('unchanged')
      }
  })
})
