/**
 * A pod whose agents are hostile: what they try against the sidecar beside them, and against each other, in each
 * identity profile, on a real node.
 */
import { expect } from 'chai'
import { before, describe, it } from 'mocha'
import type { AgentTag } from '../../shared/agent-tag.ts'
import { reasonInStatus } from '../../shared/status.ts'
import { tryKubectl } from '../../scripts/cluster.ts'
import {
  ALL_PODS,
  NAMESPACE,
  PRIVILEGED,
  RAW_POD,
  RESTRICTED,
  STRICT_NAMESPACE,
  agentRuns,
  facts,
  inPod,
  intents,
  podFacts,
  podObject,
  prepare,
} from './support.ts'
import type { AgentPod } from './support.ts'

interface Attack {
  readonly sidecars: number
  readonly succeeded: readonly string[]
  readonly denied: number
}

const WHOAMI = '/.nestgate/whoami'

/** Commands to a socket agent in a container (see test/support/socket-agent.py), and its answers. */
async function converse(
  { name, namespace }: Pick<AgentPod, 'name' | 'namespace'>,
  container: string,
  commands: readonly string[],
): Promise<readonly string[]> {
  const script = `printf '%s\\n' "$@" | python3 /agents/socket-agent.py 8001`
  const ran = await inPod(name, container, ['sh', '-c', script, 'sh', ...commands], namespace)
  return ran.stdout.trim().split('\n')
}

async function whoAmI(
  pod: Pick<AgentPod, 'name' | 'namespace'>,
  container: string,
): Promise<AgentTag> {
  const [, answer = '{}'] = await converse(pod, container, ['connect', `get ${WHOAMI}`])
  return JSON.parse(answer) as AgentTag
}

describe('hostile agents', () => {
  before(prepare)

  for (const pod of ALL_PODS)
    for (const container of pod.containers) {
      it(`gain nothing of the sidecar: ${container} of profile ${pod.profile}`, async () => {
        const ran = await inPod(
          pod.name,
          container,
          ['python3', '/agents/attack.py'],
          pod.namespace,
        )
        const attack = JSON.parse(ran.stdout) as Attack
        expect(attack.succeeded).to.deep.equal([])
        expect(attack.sidecars).to.equal(pod.profile === 'C' ? 0 : 1)
        expect(attack.denied).to.be.greaterThan(pod.profile === 'C' ? 10 : 25)
      })

      it(`are still told apart afterwards: ${container} of profile ${pod.profile}`, async () => {
        const tag = await whoAmI(pod, container)
        expect(tag.verdict).to.equal(pod.profile === 'C' ? 'container_only' : 'exclusive')
        const { containerIds } = await podFacts(pod.name, pod.namespace)
        if (pod.profile !== 'C') expect(tag.verified?.containerId).to.equal(containerIds[container])
      })
    }

  for (const pod of [RESTRICTED, PRIVILEGED]) {
    const container = pod.containers[0] ?? ''

    it(`cannot hand a connection over: profile ${pod.profile}`, async () => {
      for (const command of ['hand-over', 'pass', 'fork-get', 'share-table']) {
        const [, , answer = ''] = await converse(pod, container, [
          'connect',
          `get ${WHOAMI}`,
          `${command} ${WHOAMI}`,
        ])
        const { body } = JSON.parse(answer) as { body: string }
        expect(reasonInStatus(body), command).to.equal('connection_identity_changed')
      }
    })

    it(`are shared where two hold a connection: profile ${pod.profile}`, async () => {
      const [, answer = ''] = await converse(pod, container, ['connect', `fork-get ${WHOAMI}`])
      expect(answer).to.contain('shared')
    })

    it(`are named in namespaces of their own, if the pod lets them: profile ${pod.profile}`, async () => {
      const script = `unshare -Ur curl -sS http://127.0.0.1:8001${WHOAMI} || curl -sS http://127.0.0.1:8001${WHOAMI}`
      const ran = await inPod(pod.name, container, ['sh', '-c', script], pod.namespace)
      expect((JSON.parse(ran.stdout) as AgentTag).verdict).to.equal('exclusive')
    })
  }

  it('that can forge packets cost the whole pod its processes’ names', async () => {
    // The agent that asks has no such right itself; its neighbour has.
    const tag = await whoAmI(RAW_POD, 'honest')
    expect([tag.verdict, tag.verified]).to.deep.equal(['container_only', undefined])
    const before = (await podFacts(RAW_POD.name, NAMESPACE)).uid
    await agentRuns(RAW_POD.name, 'honest', { command: ['kubectl-new', 'get', 'pods'] })
    const made = (await intents(before)).find(({ request }) => request.resource === 'pods')
    expect([made?.tag.verdict, made?.container]).to.deep.equal(['container_only', undefined])
  })

  it('that can forge packets are not admitted where the namespace wants processes', async () => {
    const args = ['create', '--dry-run=server', '-f', '-']
    const said = await tryKubectl(facts, args, { input: JSON.stringify(strictPod(['NET_RAW'])) })
    expect(said.code).to.not.equal(0)
    expect(said.stderr)
      .to.contain('identity_level')
      .and.to.contain('spec.containers[0] has NET_RAW')
    const without = await tryKubectl(facts, args, { input: JSON.stringify(strictPod([])) })
    expect(without.code, without.stderr).to.equal(0)
  })
})

function strictPod(add: readonly string[]): object {
  const container = {
    name: 'raw',
    image: facts.agentsImage,
    securityContext: { capabilities: { add } },
  }
  return podObject(STRICT_NAMESPACE, 'raw', { containers: [container] })
}
