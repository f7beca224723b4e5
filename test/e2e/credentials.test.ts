/** What an agent can get hold of from inside its pod: no credential, of its own pod or of its sidecar. */
import { expect } from 'chai'
import { before, describe, it } from 'mocha'
import type { Search } from './agents/find-tokens.ts'
import type { RawAnswer } from './agents/request.ts'
import {
  ALL_PODS,
  OTHER_NAMESPACE,
  PLAIN_NAMESPACE,
  PODS,
  podFacts,
  prepare,
  runAgent,
} from './support.ts'

const search = (pod: string, container: string, namespace?: string): Promise<Search> =>
  runAgent<Search>(pod, container, 'find-tokens.ts', [], namespace)

describe('credentials in an injected pod', () => {
  before(prepare)

  it('are found by this search where Nestgate is not: it finds an API token in an ordinary pod', async () => {
    const { found } = await search('plain', 'planner', PLAIN_NAMESPACE)
    const subjects = found.map(({ sub }) => sub)
    expect(subjects).to.include(`system:serviceaccount:${PLAIN_NAMESPACE}:agent`)
  })

  for (const { name, namespace, profile, containers } of ALL_PODS) {
    for (const container of containers) {
      it(`cannot be found by ${container} of profile ${profile}, in any file or environment`, async () => {
        const { found, filesRead, sidecars, neighbours } = await search(name, container, namespace)
        expect(found).to.deep.equal([])
        expect(filesRead).to.be.greaterThan(1000)
        const seen = profile === 'C' ? 0 : 1
        expect(sidecars, 'in the same process namespace, or not to be seen').to.have.lengthOf(seen)
        for (const { readable } of sidecars)
          expect(readable, 'and gives nothing of itself away').to.deep.equal([])
        if (profile === 'R') expect(neighbours, 'but other agents do').to.not.be.empty
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
