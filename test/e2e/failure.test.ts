/** What agents see when a request can be read two ways, lies about who it is from, or the broker is gone. */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { eventually } from '../../scripts/run.ts'
import type { RawAnswer } from './agents/request.ts'
import {
  admin,
  agentRuns,
  audit,
  clusterAuditOfBroker,
  closeBroker,
  intents,
  NAMESPACE,
  podFacts,
  prepare,
  PRIVILEGED,
  RESTRICTED,
  runAgent,
  SYSTEM_NAMESPACE,
} from './support.ts'

const PODS_PATH = `/api/v1/namespaces/${NAMESPACE}/pods`

const raw = (...args: readonly string[]): Promise<RawAnswer> =>
  runAgent<RawAnswer>(RESTRICTED.name, 'planner', 'request.ts', args)

const forwardedCalls = (): number =>
  clusterAuditOfBroker().filter(({ impersonatedUser }) => impersonatedUser !== undefined).length

describe('a request from an injected pod', () => {
  before(prepare)
  after(closeBroker)

  const twoWays = [
    `/api/v1/namespaces/${NAMESPACE}/pods/../secrets`,
    `/api/v1/namespaces/${NAMESPACE}/pods/%2e%2e/secrets`,
    `/api/v1/namespaces/${NAMESPACE}/pods%2f..%2fsecrets`,
    `//api/v1/namespaces/${NAMESPACE}/secrets`,
    `/api/v1/namespaces/${NAMESPACE}/pods;/secrets`,
    `/api/v1/namespaces/${NAMESPACE}\\secrets`,
  ]
  for (const target of twoWays) {
    it(`is refused with 400 when its path can be read two ways: ${target}`, async () => {
      const { status, body } = await raw('GET', target)
      expect(status).to.equal(400)
      expect(body).to.include('nestgate.dev/path_ambiguous')
      expect(JSON.parse(body)).to.include({ kind: 'Status', status: 'Failure', code: 400 })
    })
  }

  it('cannot name somebody else: identity headers of its own change nothing', async () => {
    const { status, pid } = await raw(
      'GET',
      PODS_PATH,
      'Impersonate-User: system:admin',
      'Impersonate-Group: system:masters',
      'X-Remote-User: system:admin',
      'Nestgate-Agent: e30.e30.e30',
      'Nestgate-Request: 00000000-0000-7000-8000-000000000000',
    )
    expect(status).to.equal(200)
    const { uid } = await podFacts(RESTRICTED.name)
    const own = (await intents(uid)).find(({ tag }) => tag.verified?.pid === pid)
    expect(own?.credential?.user).to.equal(`system:serviceaccount:${NAMESPACE}:agent`)
    const call = clusterAuditOfBroker().find(
      ({ impersonatedUser }) =>
        impersonatedUser?.extra?.['nestgate.dev/request-id']?.[0] === own?.requestId,
    )
    expect(call?.impersonatedUser?.username).to.equal(`system:serviceaccount:${NAMESPACE}:agent`)
  })

  it('with a token that no issuer made is refused: it is the subject’s, and never the API server’s', async () => {
    const before = forwardedCalls()
    const { status, body } = await raw('GET', PODS_PATH, 'Authorization: Bearer stolen')
    expect(status).to.equal(401)
    expect(body).to.include('nestgate.dev/credentials_invalid').and.not.include('stolen')
    expect(forwardedCalls()).to.equal(before)
  })

  it('to a cluster that is not its own is refused: the path is the sidecar’s, not the agent’s', async () => {
    const { status } = await raw('GET', '/../../clusters/other/api')
    expect(status).to.equal(400)
  })
})

describe('without a broker', () => {
  before(prepare)
  after(async () => {
    await scale(1)
    closeBroker()
  })

  async function scale(replicas: number): Promise<void> {
    const set = 'statefulset/nestgate-broker'
    await admin(['-n', SYSTEM_NAMESPACE, 'scale', set, `--replicas=${replicas}`])
    if (replicas > 0) {
      await admin(['-n', SYSTEM_NAMESPACE, 'rollout', 'status', set, '--timeout=90s'])
    } else {
      const gone = ['wait', '--for=delete', 'pod/nestgate-broker-0', '--timeout=60s']
      await admin(['-n', SYSTEM_NAMESPACE, ...gone]).catch(() => undefined) // gone already
    }
  }

  it('agents get 503 with a Status, nothing is forwarded, and all goes on once it is back', async () => {
    const before = (await audit({ kind: 'intent' })).length
    closeBroker()
    await scale(0)
    const calls = forwardedCalls()
    for (const { name, containers } of [RESTRICTED, PRIVILEGED]) {
      const command = ['kubectl-old', 'get', 'pods']
      const { code, stderr } = await agentRuns(name, containers[0] ?? '', { command })
      expect(code).to.equal(1)
      expect(stderr)
        .to.include('nestgate')
        .and.to.match(/broker/)
    }
    for (const method of ['GET', 'DELETE']) {
      const { status, body } = await raw(method, `${PODS_PATH}/target`)
      expect(status, body).to.equal(503)
      expect(JSON.parse(body)).to.include({
        kind: 'Status',
        code: 503,
        reason: 'ServiceUnavailable',
      })
      expect(body).to.include('nestgate.dev/broker_unavailable')
    }
    expect(forwardedCalls()).to.equal(calls)

    await scale(1)
    await eventually('an agent’s request', 60_000, async () => {
      const { status } = await raw('GET', PODS_PATH)
      return status === 200 ? true : undefined
    })
    expect((await audit({ kind: 'intent' })).length, 'the ledger is still there').to.be.greaterThan(
      before,
    )
  })
})
