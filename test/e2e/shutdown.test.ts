/**
 * The end of a pod: agents that have something left to say when they are told to stop are served until they are gone,
 * and the sidecar does not outstay them.
 *
 * The containers' own ends are measured, not the pod's: the kubelet of 1.20 now and then forgets containers that it
 * removed before it had reported them (their state is `waiting` again), and the pod's object then stays for the whole
 * grace period.
 */
import { expect } from 'chai'
import { before, describe, it } from 'mocha'
import { tryKubectl } from '../../scripts/cluster.ts'
import {
  CONTAINED_NAMESPACE,
  NAMESPACE,
  admin,
  apply,
  facts,
  intents,
  podFacts,
  podObject,
  prepare,
} from './support.ts'

const GRACE_S = 40
/** After SIGTERM the agent waits, asks, and ends. */
const FAREWELL =
  'trap "sleep 3; kubectl-new get pods -l farewell=yes; exit 0" TERM; while :; do sleep 0.2; done'
/** What the agent needs, in seconds. */
const FAREWELL_S = 3
/** The kubelet tells within about five seconds that a container which is followed has ended. */
const SIDECAR_LIMIT_S = GRACE_S - 15

/** What is seen of a pod that ends. */
interface Leaving {
  /** What the sidecar wrote from its start to its end. */
  readonly log: string
  /** From the deletion to the sidecar's end, in seconds. */
  readonly tookS: number
  /** The last request of the agent. */
  readonly last: readonly [string | undefined, string | undefined]
}

async function leave(name: string, namespace: string): Promise<Leaving> {
  const container = {
    name: 'planner',
    image: facts.agentsImage,
    imagePullPolicy: 'IfNotPresent',
    command: ['sh', '-c', FAREWELL],
    securityContext: { allowPrivilegeEscalation: false },
  }
  const spec = {
    terminationGracePeriodSeconds: GRACE_S,
    securityContext: { runAsUser: 1000, runAsGroup: 1000, runAsNonRoot: true },
    containers: [container],
  }
  await apply(podObject(namespace, name, spec))
  const place = ['-n', namespace]
  await admin([...place, 'wait', '--for=condition=Ready', `pod/${name}`, '--timeout=60s'])
  const { uid } = await podFacts(name, namespace)
  // ends when the container does
  const follow = tryKubectl(facts, [...place, 'logs', '--follow', name, '-c', 'nestgate-sidecar'], {
    timeoutMs: 100_000,
  })
  const startedAt = performance.now()
  await admin([...place, 'delete', 'pod', name, '--wait=false'])
  const { stdout } = await follow
  const tookS = (performance.now() - startedAt) / 1000
  const found = (await intents(uid)).find(({ request }) => request.query.includes('farewell'))
  return { log: stdout, tookS, last: [found?.request.verb, found?.request.resource] }
}

describe('a pod that ends', () => {
  let both: Readonly<Record<'R' | 'C', Leaving>>

  before(async () => {
    await prepare()
    const [R, C] = await Promise.all([
      leave('leaving-r', NAMESPACE),
      leave('leaving-c', CONTAINED_NAMESPACE),
    ])
    both = { R, C }
  })

  for (const profile of ['R', 'C'] as const)
    it(`serves what its agents do last, and goes with them: profile ${profile}`, () => {
      const { log, tookS, last } = both[profile]
      expect(log).to.contain('"signal":"SIGTERM"')
      expect(last).to.deep.equal(['list', 'pods'])
      expect(tookS).to.be.within(FAREWELL_S, SIDECAR_LIMIT_S)
    })
})
