/** Sessions that the broker forwards, in both modes, with its own credentials, where the chart's policy for sessions is in force. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { parseAllDocuments, stringify } from 'yaml'
import { apply, connectImpersonation, connectIssuer } from './connected.ts'
import type { Connected } from './connected.ts'
import type { Answer } from './api-server.ts'

const RENDERED = join(import.meta.dirname, '../golden/chart/final-state/expected.yaml')
const WORKER_TOKEN = 'token-of-the-worker'
const WORKER_USER = 'system:serviceaccount:agents:worker'
const POD = '/api/v1/namespaces/agents/pods/web-1'
const RBAC = 'rbac.authorization.k8s.io'
const TOKENS = {
  [WORKER_USER]: [WORKER_TOKEN, 'system:serviceaccounts', 'system:serviceaccounts:agents'],
} as const

/** The worker may do what a session needs, and has all rights on the extra's name that RBAC could give without `impersonate`. */
const OBJECTS = `
apiVersion: ${RBAC}/v1
kind: ClusterRole
metadata: {name: sessions}
rules:
- {apiGroups: [''], resources: [pods, pods/exec, pods/portforward], verbs: [get, create]}
---
apiVersion: ${RBAC}/v1
kind: ClusterRoleBinding
metadata: {name: sessions}
roleRef: {apiGroup: ${RBAC}, kind: ClusterRole, name: sessions}
subjects:
- {kind: ServiceAccount, namespace: agents, name: worker}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: agents}
spec: {initContainers: [{name: nestgate-sidecar, image: n}], containers: [{name: web, image: web}]}
`

async function sessionsPolicy(): Promise<string> {
  const documents = parseAllDocuments(await readFile(RENDERED, 'utf8'))
  return documents
    .map((document) => document.toJS() as { metadata?: { name?: string } } | null)
    .filter((object) => object?.metadata?.name === 'nestgate-sessions')
    .map((object) => stringify(object))
    .join('---\n')
}

const MODES: readonly [string, () => Promise<Connected>][] = [
  [
    'impersonation',
    () =>
      connectImpersonation(
        { kubernetesVersion: '1.36', namespaces: ['agents'] },
        { tokens: TOKENS, files: /^rbac\.yaml$/ },
      ),
  ],
  [
    'issuer',
    async () => {
      const on = await connectIssuer({ tokens: TOKENS })
      const labels = { 'nestgate.dev/inject': 'enabled' }
      await on.api.admin('POST', '/api/v1/namespaces', { metadata: { name: 'agents', labels } })
      return on
    },
  ],
]

for (const [mode, connect] of MODES)
  describe(`sessions through the broker in mode ${mode}`, function () {
    this.timeout(60_000)
    let on: Connected
    before(async function () {
      this.timeout(1_200_000)
      on = await connect()
      await apply(on.api, OBJECTS)
      await apply(on.api, await sessionsPolicy())
      for (let tries = 0; (await directly('portforward')).status !== 403; tries += 1) {
        if (tries > 400) throw new Error('the policy does not come into force')
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
    })
    after(() => on.close())

    const directly = (
      session: string,
      headers: Readonly<Record<string, string>> = {},
    ): Promise<Answer> =>
      on.api.send('POST', `${POD}/${session}`, {
        headers: { authorization: `Bearer ${WORKER_TOKEN}`, ...headers },
      })
    const forwarded = async (session: string): Promise<Answer> => {
      const target = `${POD}/${session}`
      const made = await on.broker.make({ method: 'POST', target })
      const answer = await on.api.send('POST', target, { headers: made.headers })
      made.over()
      return answer
    }

    it('forwards a port, and enters an author’s container', async () => {
      for (const session of ['portforward', 'exec?container=web&command=sh']) {
        const { status, text } = await forwarded(session)
        expect(status, text).to.equal(200)
      }
    })

    it('never enters the sidecar', async () => {
      const { status, text } = await forwarded('exec?container=nestgate-sidecar&command=sh')
      expect(status).to.equal(403)
      expect(text).to.contain('sidecar_entered')
    })

    it('lets nobody forward a port without the broker, nor say that they were the broker', async () => {
      expect((await directly('portforward')).text).to.contain('port_forward')
      const extra = {
        'impersonate-extra-nestgate.dev%2frequest-id': 'c0ffee00-0000-4000-8000-000000000001',
      }
      const { status, text } = await directly('portforward', {
        ...extra,
        'impersonate-user': WORKER_USER,
      })
      expect(status).to.equal(403)
      expect(text).to.contain('impersonate')
    })
  })
