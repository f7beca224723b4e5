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

describe('a pod that ends', () => {
  before(prepare)

  for (const [profile, namespace] of [
    ['R', NAMESPACE],
    ['C', CONTAINED_NAMESPACE],
  ] as const)
    it(`serves what its agents do last, and goes with them: profile ${profile}`, async () => {
      const name = `leaving-${profile.toLowerCase()}`
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
      await admin([
        '-n',
        namespace,
        'wait',
        '--for=condition=Ready',
        `pod/${name}`,
        '--timeout=60s',
      ])
      const { uid } = await podFacts(name, namespace)
      // ends when the container does
      const follow = tryKubectl(
        facts,
        ['-n', namespace, 'logs', '--follow', name, '-c', 'nestgate-sidecar'],
        { timeoutMs: 100_000 },
      )
      const startedAt = performance.now()
      await admin(['-n', namespace, 'delete', 'pod', name, '--wait=false'])
      const { stdout } = await follow
      const tookS = (performance.now() - startedAt) / 1000
      expect(stdout).to.contain('"signal":"SIGTERM"')
      const last = (await intents(uid)).find(({ request }) => request.query.includes('farewell'))
      expect([last?.request.verb, last?.request.resource]).to.deep.equal(['list', 'pods'])
      expect(tookS).to.be.within(FAREWELL_S, SIDECAR_LIMIT_S)
    })
})
