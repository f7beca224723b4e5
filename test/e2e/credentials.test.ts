/** What an agent can get hold of from inside its pod: no credential, of its own pod or of its sidecar. */
import { expect } from 'chai'
import { before, describe, it } from 'mocha'
import type { Search } from './agents/find-tokens.ts'
import type { RawAnswer } from './agents/request.ts'
import { OTHER_NAMESPACE, PLAIN_NAMESPACE, PODS, podFacts, prepare, runAgent } from './support.ts'

const search = (pod: string, container: string, namespace?: string): Promise<Search> =>
  runAgent<Search>(pod, container, 'find-tokens.ts', [], namespace)

describe('credentials in an injected pod', () => {
  before(prepare)

  it('are found by this search where Nestgate is not: it finds an API token in an ordinary pod', async () => {
    const { found } = await search('plain', 'planner', PLAIN_NAMESPACE)
    const subjects = found.map(({ sub }) => sub)
    expect(subjects).to.include(`system:serviceaccount:${PLAIN_NAMESPACE}:agent`)
  })

  for (const pod of PODS) {
    for (const container of pod.containers) {
      it(`cannot be found by ${container} of profile ${pod.profile}, in any file or environment`, async () => {
        const { found, filesRead, sidecars, neighbours } = await search(pod.name, container)
        expect(found).to.deep.equal([])
        expect(filesRead).to.be.greaterThan(1000)
        expect(sidecars, 'the sidecar is in the same process namespace').to.have.lengthOf(1)
        expect(sidecars[0]?.readable, 'and gives nothing of itself away').to.deep.equal([])
        if (pod.profile === 'R') expect(neighbours, 'but other agents do').to.not.be.empty
      })
    }
  }

  it('are mounted in the sidecar only, which is there before the agents', async () => {
    const { spec } = await podFacts(PODS[0].name)
    expect(spec.containers.map(({ name }) => name)).to.include.members([
      'nestgate-sidecar',
      'planner',
      'scanner',
    ])
    const holders = spec.containers.filter((container) =>
      JSON.stringify(container).includes('nestgate-token'),
    )
    expect(holders.map(({ name }) => name)).to.deep.equal(['nestgate-sidecar'])
    const atServiceAccountPath = spec.containers.flatMap(({ volumeMounts = [] }) =>
      volumeMounts.filter(({ mountPath }) =>
        mountPath.startsWith('/var/run/secrets/kubernetes.io/serviceaccount'),
      ),
    )
    for (const mount of atServiceAccountPath)
      expect(mount).to.deep.include({ name: 'nestgate-serviceaccount', readOnly: true })
  })

  it('of another namespace stay out of the broker’s reach: nobody bound the impersonator role there', async () => {
    const path = `/api/v1/namespaces/${OTHER_NAMESPACE}/pods`
    const answer = await runAgent<RawAnswer>(
      'stranger',
      'planner',
      'request.ts',
      ['GET', path],
      OTHER_NAMESPACE,
    )
    expect(answer.status).to.equal(403)
    expect(answer.body).to.match(/cannot impersonate resource .{1,4}serviceaccounts/)
  })
})
