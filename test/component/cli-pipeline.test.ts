/** A pipeline's step: a real kubectl with a kubeconfig that nestgate wrote, through a real gateway, to a stand-in for a cluster. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import { makeCertificates } from '../support/certificates.ts'
import { CLI, DISCOVERY, kubectls, run, sendJson, withNestgate } from '../support/kubectl.ts'
import type { Run } from '../support/kubectl.ts'
import { startGateway } from '../support/running-gateway.ts'
import type { RunningGateway } from '../support/running-gateway.ts'
import { mintRunnerToken, startRunnerIssuer } from '../support/runner-issuer.ts'
import type { RunnerIssuer } from '../support/runner-issuer.ts'
import { makeSidecarKey } from '../support/sidecar-keys.ts'
import { startUpstream } from '../support/upstream.ts'
import type { Seen, Upstream } from '../support/upstream.ts'

const SLOW_MS = 60_000
const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: look, match: {subjects: ['ci:*'], verbs: [get, list, watch], resources: ['*']}, effect: allow}
- {id: ci-deletions-wait, match: {subjects: ['ci:*'], verbs: [delete], resources: [deployments], namespaces: [shop]}, effect: hold}
- {id: no-till, match: {verbs: ['*'], resources: ['*'], namespaces: [till]}, effect: deny, reason: the till is not the shop's}
`

const [kubectl] = kubectls().slice(-1)

if (kubectl === undefined) console.error('NOT RUN: a step of a pipeline: there is no kubectl here')
else
  describe('a step of a pipeline', () => {
    const certificates = makeCertificates({ hosts: ['127.0.0.1'] })
    let folder: string
    let path: string
    let upstream: Upstream
    let issuer: RunnerIssuer & { close(): Promise<void> }
    let server: RunningGateway

    before(async () => {
      folder = mkdtempSync(join(tmpdir(), 'nestgate-pipeline-'))
      path = withNestgate(folder)
      writeFileSync(join(folder, 'ca.crt'), certificates.ca)
      upstream = await startUpstream()
      issuer = await startRunnerIssuer({ host: '127.0.0.1', ...certificates })
    })
    after(async () => {
      await upstream.close()
      await issuer.close()
      rmSync(folder, { recursive: true })
    })
    beforeEach(async () => {
      upstream.seen.length = 0
      upstream.onRequest = ({ method, url = '' }, response) => {
        const found = method === 'GET' ? DISCOVERY[url.replace(/\?.*$/, '')] : undefined
        const metadata = { name: 'web', namespace: 'shop', uid: 'uid-1', resourceVersion: '1' }
        sendJson(response, found ?? { kind: 'Deployment', apiVersion: 'apps/v1', metadata })
      }
      server = await startGateway({
        ...{ upstream, certificates, policy: POLICY },
        ...{ key: await makeSidecarKey(), token: await upstream.token() },
        oidc: [
          {
            ...{ name: 'ci', issuer: issuer.issuer, audiences: ['nestgate'] },
            caFile: join(folder, 'ca.crt'),
          },
        ],
      })
    })
    afterEach(() => server.close())

    /** Runs a step as GitLab would, with a new token each time. */
    const step = async (approval: string, ...args: readonly string[]): Promise<Run> => {
      const home = mkdtempSync(join(folder, 'job-'))
      const file = join(home, 'kubeconfig')
      const env = {
        ...{ PATH: path, HOME: home, KUBECONFIG: file },
        NESTGATE_BROKER_URL: `https://127.0.0.1:${server.port}`,
        NESTGATE_CA_FILE: join(folder, 'ca.crt'),
        NESTGATE_ID_TOKEN: await mintRunnerToken(issuer, { sub: 'project_path:shop' }),
      }
      const making = ['kubeconfig', '--cluster', 'test', '--for', 'ci', '--ci', 'gitlab']
      const written = await run(
        process.execPath,
        [CLI, ...making, '--approval', approval, '--out', file],
        env,
      )
      expect(written).to.include({ code: 0 })
      return run(kubectl, args, env)
    }
    const remove = (approval: string, namespace = 'shop'): Promise<Run> =>
      step(approval, 'delete', 'deployment', 'web', '--namespace', namespace, '--wait=false')
    const effects = (): readonly Seen[] =>
      upstream.seen.filter(({ method, url }) => method === 'DELETE' && !url.includes('dryRun'))
    const ticket = async (): Promise<string> => {
      for (;;) {
        const [found] = await server.approvals.list({ states: ['PENDING'] }, 1)
        if (found !== undefined) return found.id
        await sleep(10)
      }
    }
    const decide = (id: string, approve: boolean): Promise<object> =>
      server.approvals.decide({ id, reviewer: 'alice', approve, reason: 'not on a Friday' })

    it('that policy denies fails at once, with its sentence', async () => {
      const { code, out, err } = await remove('wait', 'till')
      expect([code, out]).to.deep.equal([1, ''])
      expect(err).to.match(
        /^Error from server \(Forbidden\): nestgate: policy denies this request: rule "no-till" denies .*the till is not the shop's/m,
      )
      expect(effects()).to.deep.equal([])
    }).timeout(SLOW_MS)

    it('that is held waits, and goes on when it is approved, as the job’s subject', async () => {
      const running = remove('wait')
      await decide(await ticket(), true)
      const { code, out, err } = await running
      expect({ code, out }).to.deep.equal({ code: 0, out: 'deployment.apps "web" deleted\n' })
      expect(err).to.match(/^Warning: nestgate: approved by alice, request /m)
      expect(effects().map(({ headers }) => headers['impersonate-user'])).to.deep.equal([
        'ci:project_path:shop',
      ])
    }).timeout(SLOW_MS)

    it('that is held fails when it is denied, with the reviewer’s reason', async () => {
      const running = remove('wait')
      await decide(await ticket(), false)
      const { code, err } = await running
      expect(code).to.equal(1)
      expect(err).to.contain('a reviewer denied this request').and.contain('not on a Friday')
      expect(effects()).to.deep.equal([])
    }).timeout(SLOW_MS)

    it('may come back instead: it fails with the request’s id, and passes once when it is run again', async () => {
      const first = await remove('return')
      const id = await ticket()
      expect(first.code).to.equal(1)
      expect(first.err).to.contain('this request waits for approval').and.contain(id)
      expect((await remove('return')).err).to.contain(id)
      await decide(id, true)
      expect(effects()).to.deep.equal([])
      expect(await remove('return')).to.include({ code: 0 })
      expect(effects()).to.have.lengthOf(1)
      expect(await remove('return')).to.include({ code: 1 })
      expect(effects()).to.have.lengthOf(1)
    }).timeout(SLOW_MS)
  })
