/**
 * The broker's own process before Kubernetes' newest code, in both modes at once: what clients of every kind ask goes through it, held
 * requests with their previews too, and the API server's audit log says who it was.
 */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { request as httpsRequest } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { start } from '../../bench/processes.ts'
import type { Measured } from '../../bench/processes.ts'
import { API_SERVER_FOLDER } from '../../cli/connect/issuer.ts'
import { runCli } from '../../cli/program.ts'
import { ROOT } from '../../scripts/image.ts'
import { eventually } from '../../scripts/run.ts'
import { makeCertificates } from '../support/certificates.ts'
import { freePort } from '../support/free-port.ts'
import { AUDIENCE, mintRunnerToken, startRunnerIssuer } from '../support/runner-issuer.ts'
import { modernBinary, startApiServer, WEBSOCKET } from './api-server.ts'
import type { ApiServer, AuditEvent } from './api-server.ts'
import {
  apply,
  BROKER_GROUPS,
  BROKER_TOKEN,
  BROKER_USER,
  filesFor,
  settingsFor,
} from './connected.ts'

const MODES = ['issued', 'acted'] as const
type Mode = (typeof MODES)[number]
const SUB = 'repo:shop'
const PIPELINE = `ci:${SUB}`
const MAPS = '/api/v1/namespaces/shop/configmaps'
const DEPLOYMENTS = '/apis/apps/v1/namespaces/shop/deployments'
const PODS = '/api/v1/namespaces/shop/pods'
const APPLY = 'application/apply-patch+yaml'
const MERGE = 'application/merge-patch+json'
const SARA = randomBytes(32).toString('base64url')
const ROOT_TOKEN = randomBytes(32).toString('base64url')

const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
  - { id: look, match: { verbs: [get, list, watch], resources: ['*'] }, effect: allow }
  - { id: write, match: { verbs: [create, update, patch, delete, deletecollection], resources: [configmaps, namespaces, roles] }, effect: allow }
  - { id: exec, match: { verbs: [connect], resources: [pods/exec] }, effect: allow }
  - { id: grant, match: { verbs: [list], resources: [secrets] }, effect: allow, grant: { groups: [readers] } }
  - { id: ask, match: { verbs: [delete, update, patch, create], resources: [deployments] }, effect: hold }
`
const RBAC = 'rbac.authorization.k8s.io'
const RIGHTS = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop}
spec: {containers: [{name: web, image: web}]}
---
apiVersion: ${RBAC}/v1
kind: ClusterRole
metadata: {name: work}
rules:
- {apiGroups: [''], resources: [configmaps, namespaces], verbs: ['*']}
- {apiGroups: [apps], resources: [deployments], verbs: ['*']}
- {apiGroups: [rbac.authorization.k8s.io], resources: [roles], verbs: [create]}
- {apiGroups: [rbac.authorization.k8s.io], resources: [roles], resourceNames: [free-issued, free-acted], verbs: [escalate]}
- {apiGroups: [''], resources: [pods/exec], verbs: [get, create]}
---
apiVersion: ${RBAC}/v1
kind: ClusterRoleBinding
metadata: {name: work}
roleRef: {apiGroup: ${RBAC}, kind: ClusterRole, name: work}
subjects: [{kind: User, apiGroup: ${RBAC}, name: '${PIPELINE}'}]
---
apiVersion: ${RBAC}/v1
kind: ClusterRole
metadata: {name: read-secrets}
rules: [{apiGroups: [''], resources: [secrets], verbs: [list]}]
---
apiVersion: ${RBAC}/v1
kind: ClusterRoleBinding
metadata: {name: read-secrets}
roleRef: {apiGroup: ${RBAC}, kind: ClusterRole, name: read-secrets}
subjects: [{kind: Group, apiGroup: ${RBAC}, name: readers}]
`

interface Reply {
  readonly status: number
  readonly text: string
  readonly requestId: string
}

interface Line {
  readonly body?: object
  readonly contentType?: string
  readonly headers?: Readonly<Record<string, string>>
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

/** A request by TLS on a connection of its own. */
function ask(
  url: string,
  ca: string,
  method: string,
  bearer: string,
  line: Line = {},
): Promise<Reply> {
  const { body, contentType = 'application/json', headers = {} } = line
  return new Promise((resolve, reject) => {
    const type = body === undefined ? {} : { 'content-type': contentType }
    const sent = httpsRequest(url, {
      ...{ method, ca, agent: false },
      headers: { authorization: `Bearer ${bearer}`, ...type, ...headers },
    })
    sent.on('error', reject)
    sent.on('upgrade', (response, socket) => {
      socket.destroy()
      const id = response.headers['nestgate-request-id']
      resolve({ status: 101, text: '', requestId: String(id) })
    })
    sent.on('response', (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
      })
      response.on('error', reject)
      response.on('end', () => {
        const requestId = String(response.headers['nestgate-request-id'])
        resolve({ status: response.statusCode ?? 0, text, requestId })
      })
    })
    sent.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

describe('the broker’s process on the newest Kubernetes', function () {
  this.timeout(60_000)
  const closers: (() => Promise<void> | void)[] = []
  let api: ApiServer
  let brokerUrl: string
  let brokerCaFile: string
  let ca: string
  let broker: Measured
  let bearer: () => Promise<string>

  before(async function () {
    this.timeout(1_200_000)
    const dir = mkdtempSync(join(tmpdir(), 'nestgate-process-'))
    closers.push(() => {
      rmSync(dir, { recursive: true })
    })
    const file = (name: string, text: string): string => {
      writeFileSync(join(dir, name), text, { mode: 0o600 })
      return join(dir, name)
    }
    const certificates = makeCertificates({ hosts: ['127.0.0.1'] })
    ;({ ca } = certificates)
    const port = await freePort()
    brokerUrl = `https://127.0.0.1:${port}`
    const issuer = await startRunnerIssuer({ host: '127.0.0.1', ...certificates })
    closers.push(() => issuer.close())
    bearer = () => mintRunnerToken(issuer, { sub: SUB })

    // the API server's address is needed before it can start: it waits for the issuer
    const apiPort = await freePort()
    const apiServer = { url: `https://127.0.0.1:${apiPort}` }
    const self = { url: brokerUrl, ca }
    brokerCaFile = file('ca.crt', ca)
    const requests: Readonly<Record<Mode, Parameters<typeof filesFor>[1]>> = {
      issued: { cluster: 'issued', mode: 'issuer' },
      acted: { cluster: 'acted', mode: 'impersonation', users: [PIPELINE], groups: ['readers'] },
    }
    const server = makeCertificates({ hosts: ['127.0.0.1'] })
    const caFile = file('api-ca.crt', server.ca)
    mkdirSync(join(dir, 'data'), { mode: 0o700 })
    const config = {
      listen: { host: '127.0.0.1', port },
      tls: {
        certFile: file('tls.crt', certificates.cert),
        keyFile: file('tls.key', certificates.key),
      },
      dataDir: join(dir, 'data'),
      policyFile: file('policy.yaml', POLICY),
      issuer: { url: `${brokerUrl}/issuer` },
      clusters: [
        { ...settingsFor(self, apiServer, requests.issued), caFile },
        {
          ...settingsFor(self, apiServer, requests.acted),
          ...{ caFile, credential: { tokenFile: file('token', BROKER_TOKEN) } },
        },
      ],
      oidc: [{ name: 'ci', issuer: issuer.issuer, audiences: [AUDIENCE], caFile: brokerCaFile }],
      people: [
        { name: 'sara', roles: ['reviewer', 'auditor'], tokenSha256: sha256(SARA) },
        { name: 'root', roles: ['admin'], tokenSha256: sha256(ROOT_TOKEN) },
      ],
    }
    const args = [
      join(ROOT, 'broker', 'main.ts'),
      '--config',
      file('broker.json', JSON.stringify(config)),
    ]
    broker = await start('broker', process.execPath, args, /"msg":"listening"/)
    closers.push(() => broker.stop())
    for (const [name, text] of filesFor(self, requests.issued))
      file(name, text.replaceAll(API_SERVER_FOLDER, dir))
    api = await startApiServer(await modernBinary(), {
      args: [
        `--secure-port=${apiPort}`,
        `--authentication-config=${join(dir, 'authentication-config.yaml')}`,
        `--authorization-config=${join(dir, 'authorization-config.yaml')}`,
      ],
      tokens: { [BROKER_USER]: [BROKER_TOKEN, ...BROKER_GROUPS] },
      certificates: server,
    })
    closers.push(() => api.close())
    await apply(api, RIGHTS)
    const files = filesFor(self, requests.acted)
    for (const name of ['rbac.yaml', 'admission-webhook.yaml', 'admission-policy.yaml'])
      await apply(api, files.get(name) ?? '')
  })
  after(async () => {
    for (const close of closers.toReversed()) await close()
  })

  const call = async (mode: Mode, method: string, path: string, line?: Line): Promise<Reply> =>
    ask(`${brokerUrl}/clusters/${mode}${path}`, ca, method, await bearer(), line)
  const person = (method: string, path: string, body?: object): Promise<Reply> =>
    ask(brokerUrl + path, ca, method, SARA, body === undefined ? {} : { body })
  const actorOf = ({ user, impersonatedUser }: AuditEvent) => impersonatedUser ?? user

  for (const mode of MODES)
    describe(`mode ${mode}`, () => {
      const name = mode
      const map = (more: object = {}): object => ({
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { name },
        ...more,
      })
      const lines: readonly (readonly [
        method: string,
        path: string,
        line: Line,
        status: number,
      ])[] = [
        ['POST', MAPS, { body: map() }, 201],
        ['POST', MAPS, { body: { metadata: { generateName: `${name}-` } } }, 201],
        ['GET', `${MAPS}/${name}`, {}, 200],
        ['GET', MAPS, {}, 200],
        ['GET', `${MAPS}?fieldSelector=metadata.name%3D${name}`, {}, 200],
        ['GET', `${MAPS}?watch=true&timeoutSeconds=1`, {}, 200],
        ['PUT', `${MAPS}/${name}`, { body: map({ data: { a: '1' } }) }, 200],
        ['PATCH', `${MAPS}/${name}`, { contentType: MERGE, body: { data: { b: '2' } } }, 200],
        [
          'PATCH',
          `${MAPS}/${name}?fieldManager=t&force=true`,
          { contentType: APPLY, body: map({ data: { a: '3' } }) },
          200,
        ],
        ['DELETE', `${MAPS}/${name}?dryRun=All`, {}, 200],
        ['DELETE', `${MAPS}/${name}`, {}, 200],
        ['PATCH', `${MAPS}/${name}?fieldManager=t`, { contentType: APPLY, body: map() }, 201],
        ['DELETE', `${MAPS}?labelSelector=no%3Dne`, {}, 200],
        ['POST', '/api/v1/namespaces', { body: { metadata: { name: `ns-${name}` } } }, 201],
        ['DELETE', `/api/v1/namespaces/ns-${name}`, {}, 200],
        ['GET', '/api/v1/namespaces/shop/secrets', {}, 200],
        ['GET', '/api', {}, 200],
        ['GET', '/apis/apps/v1', {}, 200],
        ['GET', '/version', {}, 200],
        ['GET', `${PODS}/web-1/exec?command=ls&stdout=true`, { headers: { ...WEBSOCKET } }, 101],
        ['GET', `${PODS}/web-1`, {}, 403],
        ['GET', '/api/v1/namespaces/kube-system/secrets', {}, 200],
        ['GET', '/api/v1/pods', {}, 403],
      ]
      for (const [method, path, line, status] of lines)
        it(`${method} ${path} is answered ${status}, and named in the audit log`, async () => {
          const answer = await call(mode, method, path, line)
          expect(answer.status, answer.text).to.equal(status)
          const event = await api.audit(answer.requestId)
          const expected = mode === 'issued' ? `nestgate:subject:${PIPELINE}` : PIPELINE
          expect(actorOf(event).username).to.equal(expected)
          expect(actorOf(event).extra).to.deep.include({
            'nestgate.dev/request-id': [answer.requestId],
          })
        })

      const questions: readonly (readonly [spec: object, allowed: boolean])[] = [
        [{ resourceAttributes: { verb: 'list', resource: 'configmaps', namespace: 'shop' } }, true],
        [{ resourceAttributes: { verb: 'list', resource: 'pods', namespace: 'shop' } }, false],
        [{ nonResourceAttributes: { verb: 'get', path: '/version' } }, true],
        [{ nonResourceAttributes: { verb: 'get', path: '/metrics' } }, false],
      ]
      for (const [spec, allowed] of questions)
        it(`answers ${String(allowed)} to a question about oneself: ${JSON.stringify(spec)}`, async () => {
          const kind = 'SelfSubjectAccessReview'
          const body = { apiVersion: 'authorization.k8s.io/v1', kind, spec }
          const path = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews'
          const answer = await call(mode, 'POST', path, { body })
          expect(answer.status, answer.text).to.equal(201)
          const review: unknown = JSON.parse(answer.text)
          expect(review, answer.text).to.have.nested.property('status.allowed', allowed)
          expect(review).to.include({ kind })
        })

      const labels = { app: mode }
      const template = {
        metadata: { labels },
        spec: { containers: [{ name: 'web', image: 'web' }] },
      }
      const deployment = (replicas: number): object => ({
        ...{ apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: mode } },
        spec: { replicas, selector: { matchLabels: labels }, template },
      })
      const held: readonly (readonly [method: string, line: Line, status: number])[] = [
        ['POST', { body: deployment(1) }, 201],
        ['PATCH', { contentType: APPLY, body: deployment(2) }, 200],
        ['PATCH', { contentType: MERGE, body: { spec: { replicas: 3 } } }, 200],
        ['PUT', { body: deployment(4) }, 200],
        ['DELETE', {}, 200],
      ]
      for (const [method, line, status] of held)
        it(`${method} waits for a person, who sees what it would do, and is named`, async () => {
          const query = line.contentType === APPLY ? '?fieldManager=held&force=true' : ''
          const path = DEPLOYMENTS + (method === 'POST' ? '' : `/${mode}${query}`)
          const waiting = call(mode, method, path, line)
          const id = await eventually('the held request', 20_000, async () => {
            const { text } = await person('GET', '/v1/approvals?state=PENDING')
            const { items } = JSON.parse(text) as { items: { id: string; cluster: string }[] }
            return items.find(({ cluster }) => cluster === mode)?.id
          })
          const shown = await person('GET', `/v1/approvals/${id}`)
          expect(shown.status, shown.text).to.equal(200)
          const { preview } = JSON.parse(shown.text) as { preview: Record<string, string> }
          // what it would come to, as the API server said: without that it is what was sent
          expect(preview['kind'], shown.text).to.equal(method === 'DELETE' ? 'object' : 'diff')
          expect(preview).not.to.have.property('note')
          const approved = await person('POST', `/v1/approvals/${id}/approve`, { reason: 'fine' })
          expect(approved.status, approved.text).to.equal(200)
          const done = await waiting
          expect(done.status, done.text).to.equal(status)
          const event = await api.audit(id)
          expect(actorOf(event).extra).to.deep.include({ 'nestgate.dev/approver': ['sara'] })
        })

      // who writes a role is asked for `escalate` beside it, or must have all its rights under the name that asks: ours have none
      const roles: readonly (readonly [name: string, resource: string, status: number])[] = [
        ['free', 'secrets', 201],
        ['own', 'configmaps', mode === 'issued' ? 403 : 201],
        ['more', 'secrets', 403],
      ]
      for (const [prefix, resource, status] of roles)
        it(`gives away rights on ${resource} by a role ${prefix}: ${status}`, async () => {
          const body = {
            metadata: { name: `${prefix}-${mode}` },
            rules: [{ apiGroups: [''], resources: [resource], verbs: ['get'] }],
          }
          const path = `/apis/${RBAC}/v1/namespaces/shop/roles`
          const answer = await call(mode, 'POST', path, { body })
          expect(answer.status, answer.text).to.equal(status)
        })

      it('is sound by what nestgate doctor tries', async () => {
        let text = ''
        const say = (said: string): void => {
          text += said
        }
        const code = await runCli({
          ...{ args: ['doctor', mode], now: Date.now, out: say, err: say },
          env: {
            NESTGATE_BROKER_URL: brokerUrl,
            NESTGATE_TOKEN: ROOT_TOKEN,
            NESTGATE_CA_FILE: brokerCaFile,
          },
        })
        expect(text, text).to.contain('v1.36').and.not.to.contain('FAILED')
        expect(text).to.contain(' 0 show nothing')
        expect(code, text).to.equal(0)
      })
    })
})
