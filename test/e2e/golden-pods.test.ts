/**
 * The golden cases of the webhook on the real API server. What it would refuse, no webhook should make: every injected pod
 * is stored in a dry run, in the mode of this server (native sidecars cannot be expressed before 1.29: there all cases are
 * tried with the sidecar as an ordinary container). And the author's own pod goes through the webhook that is installed.
 */
import { expect } from 'chai'
import { before, describe, it } from 'mocha'
import { minorVersion, tryKubectl } from '../../scripts/cluster.ts'
import type { Ran } from '../../scripts/run.ts'
import type {
  InjectionSettings,
  SidecarMode,
  WantedLevel,
} from '../../shared/injection/sidecar-spec.ts'
import { REASONS } from '../../shared/reasons.ts'
import { admit } from '../support/pod-admission.ts'
import type { Json } from '../support/pod-admission.ts'
import { SETTINGS, inject } from '../support/reviews.ts'
import { goldenCases, readGolden } from '../support/webhook-golden.ts'
import { apply, facts, NAMESPACE, prepare } from './support.ts'

const GOLDEN_NAMESPACE = 'e2e-golden'
/** From here on init containers may keep running without a feature gate. */
const NATIVE_MINOR = 29

function create(namespace: string, pod: Json): Promise<Ran> {
  const { metadata } = pod
  const placed = { ...pod, metadata: { ...(metadata as Json), namespace } }
  // a newer server's fields are dropped by an older one, as they are when a client does not look
  const args = ['-n', namespace, 'create', '--dry-run=server', '--validate=false', '-o', 'json']
  return tryKubectl(facts, [...args, '-f', '-'], { input: JSON.stringify(placed) })
}

interface Options {
  readonly namespace?: string
  readonly level?: WantedLevel
  readonly settings?: Partial<InjectionSettings>
}

describe('golden pods on a real API server', () => {
  let mode: SidecarMode

  before(async () => {
    await prepare()
    mode = (await minorVersion(facts)) < NATIVE_MINOR ? 'container' : 'native'
    // not labelled: the pods are injected already, with the settings of the golden cases
    await apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: GOLDEN_NAMESPACE } })
  })

  for (const name of goldenCases())
    it(`${name}: the injected pod is accepted, and the author’s is injected or refused for a reason`, async () => {
      const options = (readGolden(name, 'options.json') ?? {}) as Options
      const { namespace = 'team-a', level } = options
      const settings = { ...SETTINGS, mode, ...options.settings }
      const author = readGolden(name, 'pod.json') ?? {}
      const era = mode === 'native' ? '1.33' : '1.20'
      const { pod } = inject(admit(author, era), settings, { namespace }, level)
      const [bare, stored, through] = await Promise.all([
        create(GOLDEN_NAMESPACE, author),
        pod === undefined ? undefined : create(GOLDEN_NAMESPACE, pod),
        create(NAMESPACE, author),
      ])
      if (bare.code !== 0) {
        // two cases are pods that no API server takes: what is wrong with them stays so, and nothing of ours is
        expect([stored?.code ?? 1, through.code]).to.deep.equal([1, 1])
        expect(stored?.stderr ?? bare.stderr).to.contain('is invalid')
        return
      }
      if (stored !== undefined) {
        expect(stored.code, stored.stderr).to.equal(0)
        expect(containersOf(stored.stdout)).to.deep.equal(containersOf(JSON.stringify(pod)))
      }
      if (through.code === 0) expect(containersOf(through.stdout)).to.include('nestgate-sidecar')
      else {
        const code = /denied the request: nestgate: (\w+): /.exec(through.stderr)?.[1]
        expect(Object.keys(REASONS), through.stderr).to.include(code)
      }
    })
})

/** Names of all containers, in their order. */
function containersOf(json: string): readonly string[] {
  const { spec } = JSON.parse(json) as {
    spec: { initContainers?: { name: string }[]; containers: { name: string }[] }
  }
  return [...(spec.initContainers ?? []), ...spec.containers].map(({ name }) => name)
}
