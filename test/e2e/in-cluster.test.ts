/**
 * Clients that ignore KUBECONFIG and take what the kubelet gives to in-cluster clients: unchanged, in a pod of each
 * identity profile, they list pods through the sidecar, and the audit names each.
 */
import { expect } from 'chai'
import { before, describe, it } from 'mocha'
import { ALL_PODS, agentRuns, intents, podFacts, prepare } from './support.ts'

interface InClusterClient {
  readonly label: string
  readonly command: readonly string[]
  /** Name of its executable. */
  readonly exe: RegExp
}

const CLIENTS: readonly InClusterClient[] = [
  { label: 'Python', command: ['python3', '/agents/list-pods.py'], exe: /^python3/ },
  { label: 'JavaScript', command: ['node', '/agents/list-pods.ts'], exe: /^node$/ },
  {
    label: 'Go (kubectl)',
    command: ['env', '-u', 'KUBECONFIG', 'kubectl-new', 'get', 'pods', '-o', 'name'],
    exe: /^kubectl-new$/,
  },
]

describe('in-cluster clients', () => {
  before(prepare)

  for (const pod of ALL_PODS)
    for (const [at, container] of pod.containers.entries())
      for (const { label, command, exe } of CLIENTS)
        it(`list pods unchanged: ${label} in ${container} of profile ${pod.profile}`, async () => {
          const { uid } = await podFacts(pod.name, pod.namespace)
          const before = (await intents(uid)).length
          const report = await agentRuns(pod.name, container, { command }, pod.namespace)
          expect(report.code, report.stderr).to.equal(0)
          expect(report.stdout).to.match(new RegExp(`^(?:pod/)?${pod.name}$`, 'm'))
          const made = (await intents(uid)).slice(0, -before || undefined)
          const list = made.find(({ request }) => request.resource === 'pods')
          expect(list?.request).to.include({ verb: 'list', namespace: pod.namespace })
          expect(list?.container?.name).to.equal(container)
          const program = list?.agent.split('/')[2] ?? ''
          if (pod.profile === 'C') {
            expect(list?.tag.verdict).to.equal('container_only')
            expect(list?.tag.socket?.uid).to.equal(1001 + at)
            expect(list?.agent).to.equal(`unregistered/${container}/unknown`)
          } else {
            expect(list?.tag.verdict).to.equal('exclusive')
            expect(list?.tag.verified?.pid).to.equal(report.pid)
            expect(program).to.match(exe)
          }
        })
})
