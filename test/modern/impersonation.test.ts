/** Mode `impersonation` on Kubernetes' own newest code, with the files of `nestgate connect` applied: RBAC, and the policy that binds. */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import type { Actor } from '../../broker/credentials/actor.ts'
import { ADMIN, WEBSOCKET } from './api-server.ts'
import type { Answer, Sent } from './api-server.ts'
import type { Made, Wanted } from './broker.ts'
import { apply, BROKER_TOKEN, connectImpersonation } from './connected.ts'
import type { Connected } from './connected.ts'

const WORKER_TOKEN = 'token-of-the-worker'
const OPS_TOKEN = 'token-of-ops'
const WORKER_USER = 'system:serviceaccount:agents:worker'
const SARA: Actor = { kind: 'subject', name: 'ci:sara' }
const MAPS = '/api/v1/namespaces/agents/configmaps'
const RBAC = 'rbac.authorization.k8s.io'

/** Who may do what of their own; the broker has nothing but its files. */
const ROLES = `
apiVersion: ${RBAC}/v1
kind: ClusterRoleBinding
metadata: {name: people}
roleRef: {apiGroup: ${RBAC}, kind: ClusterRole, name: cluster-admin}
subjects:
- {kind: ServiceAccount, namespace: agents, name: worker}
- {kind: User, apiGroup: ${RBAC}, name: 'ci:sara'}
- {kind: User, apiGroup: ${RBAC}, name: ops}
- {kind: User, apiGroup: ${RBAC}, name: eve}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: agents}
spec: {containers: [{name: web, image: web}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: one, namespace: agents}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: agents}
spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: web}]}}}
`

const OLD_IMPERSONATION = '--feature-gates=ConstrainedImpersonation=false'
const POLICY = { files: /^(rbac|admission-policy)\.yaml$/, unbound: 'approved is nothing' }
const WEBHOOK = {
  files: /^(rbac|admission-webhook)\.yaml$/,
  unbound: 'this user acts through the broker only',
}
/** What `connect` says to apply from 1.30 on; the policy is asked first. */
const BOTH = { files: /^(rbac|admission-.*)\.yaml$/, unbound: POLICY.unbound }
const CONSTRAINED = 'impersonate:user-info'

const SPECS: readonly {
  readonly kubernetesVersion: string
  readonly args: readonly string[]
  readonly constraint: string | undefined
  readonly bound: {
    readonly files: RegExp
    /** What somebody is told who is bound, and comes without the broker. */
    readonly unbound: string
  }
}[] = [
  { kubernetesVersion: '1.36', args: [], constraint: CONSTRAINED, bound: BOTH },
  { kubernetesVersion: '1.36', args: [], constraint: CONSTRAINED, bound: POLICY },
  // a cluster before 1.36
  { kubernetesVersion: '1.35', args: [OLD_IMPERSONATION], constraint: undefined, bound: BOTH },
  // a cluster with the files for an older one
  { kubernetesVersion: '1.30', args: [], constraint: undefined, bound: POLICY },
  { kubernetesVersion: '1.29', args: [], constraint: undefined, bound: WEBHOOK },
  { kubernetesVersion: '1.27', args: [], constraint: undefined, bound: WEBHOOK },
]

for (const { kubernetesVersion, args, constraint, bound } of SPECS)
  describe(`mode impersonation with ${bound.files.source} for ${kubernetesVersion} ${args.join(' ')}`, function () {
    this.timeout(60_000)
    let on: Connected
    before(async function () {
      this.timeout(1_200_000)
      on = await connectImpersonation(
        {
          kubernetesVersion,
          namespaces: ['agents'],
          users: ['ci:sara'],
          groups: ['deployers', 'readers'],
        },
        {
          ...{ args, files: bound.files },
          tokens: {
            [WORKER_USER]: [
              WORKER_TOKEN,
              'system:serviceaccounts',
              'system:serviceaccounts:agents',
            ],
            ops: [OPS_TOKEN],
          },
        },
      )
      await apply(on.api, ROLES)
      await policyIsInForce()
    })
    after(() => on.close())

    const isAsked = bound !== POLICY
    /** A thief of the broker's token, who says what he does. */
    const madeUp = {
      ...{ authorization: `Bearer ${BROKER_TOKEN}`, 'impersonate-user': WORKER_USER },
      'impersonate-extra-nestgate.dev%2fbind': 'CREATE /configmaps/ agents/probe',
    }
    const probe = (headers: Readonly<Record<string, string>>): Promise<Answer> =>
      on.api.send('POST', `${MAPS}?dryRun=All`, { headers, body: { metadata: { name: 'probe' } } })
    /** Policies and webhooks are known by informers, a moment after they were made. */
    const policyIsInForce = async (): Promise<void> => {
      const headers = { authorization: `Bearer ${WORKER_TOKEN}` }
      for (let tries = 0; tries < 200; tries += 1) {
        const isSeen = (await probe(headers)).text.includes(bound.unbound)
        if (isSeen && (!isAsked || (await probe(madeUp)).status === 403)) return
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
      throw new Error('what binds does not come into force')
    }
    const send = (
      made: Made,
      { method, target, contentType }: Wanted,
      sent: Sent = {},
    ): Promise<Answer> =>
      on.api.send(method, target, {
        ...sent,
        headers: { ...sent.headers, ...made.headers },
        ...(contentType === undefined ? {} : { contentType }),
      })
    const perform = async (
      wanted: Wanted,
      sent?: Sent,
    ): Promise<Answer & { readonly requestId: string }> => {
      const made = await on.broker.make(wanted)
      const answer = await send(made, wanted, sent)
      made.over()
      return { ...answer, requestId: made.requestId }
    }
    const READ = { method: 'GET', target: `${MAPS}/one` }

    describe('whom the broker may be', () => {
      it('is a service account of the namespace, and the audit log has the request', async () => {
        const { requestId, ...answer } = await perform({ ...READ, approvers: ['sara', 'sven'] })
        expect(answer.status, answer.text).to.equal(200)
        const event = await on.api.audit(requestId)
        expect(event.user.username).to.equal(
          'system:serviceaccount:nestgate-system:nestgate-broker',
        )
        expect(event.impersonatedUser).to.deep.equal({
          username: WORKER_USER,
          groups: [
            'system:serviceaccounts',
            'system:serviceaccounts:agents',
            'system:authenticated',
          ],
          extra: {
            'nestgate.dev/request-id': [requestId],
            'nestgate.dev/process': ['planner'],
            'nestgate.dev/approver': ['sara', 'sven'],
          },
        })
      })

      it('is one with the groups that a rule grants', async () => {
        const { requestId, ...answer } = await perform({
          ...READ,
          grantGroups: ['deployers', 'readers'],
        })
        expect(answer.status, answer.text).to.equal(200)
        const { impersonatedUser } = await on.api.audit(requestId)
        expect(impersonatedUser?.groups).to.include.members([
          'deployers',
          'readers',
          'system:serviceaccounts:agents',
        ])
      })

      for (const grantGroups of [[], ['deployers'], ['deployers', 'readers']])
        it(`is a user that is named, with ${grantGroups.length} groups`, async () => {
          const wanted = { ...READ, actor: SARA, grantGroups, approvers: ['a', 'b', 'c', 'd', 'e'] }
          const { requestId, ...answer } = await perform(wanted)
          expect(answer.status, answer.text).to.equal(200)
          const event = await on.api.audit(requestId)
          expect(event.impersonatedUser?.username).to.equal('ci:sara')
          expect(event.authenticationMetadata?.impersonationConstraint).to.equal(constraint)
        })

      const verbs: readonly Wanted[] = [
        {
          method: 'GET',
          target: '/api/v1/namespaces/agents/pods/web-1/exec?command=ls',
          operations: ['CONNECT /pods/exec agents/web-1'],
        },
        { method: 'GET', target: MAPS },
        { method: 'DELETE', target: `${MAPS}?labelSelector=none%3Dnone` },
        { method: 'GET', target: '/version' },
        { method: 'HEAD', target: '/healthz' },
      ]
      for (const wanted of verbs)
        it(`is a user for ${wanted.method} ${wanted.target}`, async () => {
          const answer = await perform({ ...wanted, actor: SARA })
          expect(answer.status, answer.text).to.equal(200)
        })

      const nobody: readonly (readonly [string, Record<string, string>])[] = [
        [
          'a service account of another namespace',
          { 'impersonate-user': 'system:serviceaccount:kube-system:default' },
        ],
        ['a user that is not named', { 'impersonate-user': 'eve' }],
        [
          'a group that is not named',
          { 'impersonate-user': 'ci:sara', 'impersonate-group': 'admins' },
        ],
        [
          'system:masters',
          { 'impersonate-user': 'ci:sara', 'impersonate-group': 'system:masters' },
        ],
        [
          'a user with another extra',
          { 'impersonate-user': 'ci:sara', 'impersonate-extra-scopes': 'all' },
        ],
        ['a user with another uid', { 'impersonate-user': 'ci:sara', 'impersonate-uid': '1' }],
        ['a node', { 'impersonate-user': 'system:node:one' }],
        ['the administrator', { 'impersonate-user': 'admin' }],
      ]
      for (const [whom, identity] of nobody)
        it(`is never ${whom}`, async () => {
          const headers = { authorization: `Bearer ${BROKER_TOKEN}`, ...identity }
          const answer = await on.api.send('GET', `${MAPS}/one`, { headers })
          expect(answer.status, answer.text).to.equal(403)
        })

      it('is not the broker itself: it has no rights of its own', async () => {
        const headers = { authorization: `Bearer ${BROKER_TOKEN}` }
        expect(await on.api.send('GET', `${MAPS}/one`, { headers })).to.include({ status: 403 })
      })
    })

    describe('what is bound', () => {
      const writes: readonly (Wanted & { readonly body?: object; readonly status: number })[] = [
        {
          method: 'POST',
          target: MAPS,
          operations: ['CREATE /configmaps/ agents/two'],
          body: { metadata: { name: 'two' } },
          status: 201,
        },
        {
          method: 'PUT',
          target: `${MAPS}/two`,
          body: { metadata: { name: 'two' }, data: { a: '1' } },
          status: 200,
        },
        {
          ...{
            method: 'PATCH',
            target: `${MAPS}/three?fieldManager=t`,
            contentType: 'application/apply-patch+yaml',
            status: 201,
          },
          body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'three' } },
        },
        {
          ...{
            method: 'PATCH',
            target: `${MAPS}/three?fieldManager=t`,
            contentType: 'application/apply-patch+yaml',
            status: 200,
          },
          body: {
            apiVersion: 'v1',
            kind: 'ConfigMap',
            metadata: { name: 'three' },
            data: { a: '1' },
          },
        },
        {
          ...{
            method: 'PATCH',
            target: '/apis/apps/v1/namespaces/agents/deployments/web',
            status: 200,
          },
          ...{
            contentType: 'application/strategic-merge-patch+json',
            body: { spec: { replicas: 3 } },
          },
        },
        { method: 'DELETE', target: `${MAPS}/three`, status: 200 },
        {
          method: 'POST',
          target: '/api/v1/namespaces',
          operations: ['CREATE /namespaces/ /green'],
          body: { metadata: { name: 'green' } },
          status: 201,
        },
        {
          ...{
            method: 'PATCH',
            target: '/api/v1/namespaces/green',
            contentType: 'application/merge-patch+json',
            status: 200,
          },
          body: { metadata: { labels: { a: 'b' } } },
        },
        { method: 'DELETE', target: '/api/v1/namespaces/green', status: 200 },
        { method: 'DELETE', target: `${MAPS}?labelSelector=none%3Dnone`, status: 200 },
        { method: 'DELETE', target: `${MAPS}?labelSelector=a%3Db`, status: 200 },
        // the name is made by the server, or the body was not looked into: any name will do (broker/gateway/credential.ts)
        {
          method: 'POST',
          target: MAPS,
          operations: ['CREATE /configmaps/ agents/*'],
          body: { metadata: { generateName: 'some-' } },
          status: 201,
        },
        {
          method: 'POST',
          target: MAPS,
          operations: ['CREATE /configmaps/ agents/*'],
          body: { metadata: { name: 'unread' } },
          status: 201,
        },
      ]
      for (const actor of [undefined, SARA])
        describe(`as ${actor === undefined ? 'account' : 'user'}`, () => {
          after(() => on.api.admin('DELETE', `${MAPS}/two`))
          for (const { body, status, ...wanted } of writes)
            it(`passes: ${wanted.method} ${wanted.target} ${wanted.contentType ?? ''} ${JSON.stringify(body ?? '')}`, async () => {
              if (wanted.target.includes('a%3Db')) await labelled('four')
              const asked = actor === undefined ? wanted : { ...wanted, actor }
              const answer = await perform(asked, body === undefined ? {} : { body })
              expect(answer.status, answer.text).to.equal(status)
              if (wanted.operations?.[0]?.endsWith('*') === true) await gone(answer)
            })
        })
      const labelled = (name: string): Promise<void> =>
        on.api.admin('POST', MAPS, { metadata: { name, labels: { a: 'b' } } })
      /** So that the next one can make the same. */
      const gone = async ({ text }: Answer): Promise<void> => {
        const { metadata } = JSON.parse(text) as { metadata: { name: string } }
        await on.api.admin('DELETE', `${MAPS}/${metadata.name}`)
      }

      const EXEC = '/api/v1/namespaces/agents/pods/web-1/exec?command=ls'
      it('passes as a session', async () => {
        const answer = await perform({ method: 'GET', target: EXEC }, { headers: { ...WEBSOCKET } })
        expect(answer.status, answer.text).to.equal(101)
        expect(await perform({ method: 'POST', target: EXEC })).to.include({ status: 200 })
      })

      const refused: readonly (readonly [string, Wanted, Wanted, object?])[] = [
        [
          'another object',
          { method: 'DELETE', target: `${MAPS}/one` },
          { method: 'DELETE', target: `${MAPS}/other` },
        ],
        [
          'another namespace',
          { method: 'DELETE', target: '/api/v1/namespaces/default/configmaps/one' },
          { method: 'DELETE', target: `${MAPS}/one` },
        ],
        [
          'another verb',
          { method: 'PUT', target: `${MAPS}/one` },
          { method: 'DELETE', target: `${MAPS}/one` },
        ],
        [
          'another resource',
          { method: 'DELETE', target: '/api/v1/namespaces/agents/secrets/one' },
          { method: 'DELETE', target: `${MAPS}/one` },
        ],
        [
          'all objects',
          { method: 'DELETE', target: `${MAPS}/one` },
          { method: 'DELETE', target: MAPS },
        ],
        [
          'a subresource',
          { method: 'POST', target: '/api/v1/namespaces/agents/pods/web-1' },
          { method: 'POST', target: EXEC },
        ],
        [
          'a session in another pod',
          { method: 'POST', target: '/api/v1/namespaces/agents/pods/web-2/exec' },
          { method: 'POST', target: EXEC },
        ],
        ['a write where a read was approved', READ, { method: 'DELETE', target: `${MAPS}/one` }],
        ['a session where a read was approved', READ, { method: 'GET', target: EXEC }],
      ]
      for (const actor of [undefined, SARA])
        for (const [what, approved, sent] of refused)
          it(`does not pass as ${actor === undefined ? 'account' : 'user'}: ${what}`, async () => {
            await on.api.admin('POST', MAPS, { metadata: { name: 'other' } })
            const made = await on.broker.make(
              actor === undefined ? approved : { ...approved, actor },
            )
            const answer = await send(made, sent)
            made.over()
            await on.api.admin('DELETE', `${MAPS}/other`)
            expect(answer.status, answer.text).to.equal(403)
            expect(answer.text).to.include('nestgate: this is ')
          })
    })

    describe('what is not bound', () => {
      it('is refused: the account with its own token', async () => {
        const headers = { authorization: `Bearer ${WORKER_TOKEN}` }
        const answer = await on.api.send('DELETE', `${MAPS}/one`, { headers })
        expect(answer.status, answer.text).to.equal(403)
        expect(answer.text).to.include(bound.unbound)
        expect(await on.api.send('GET', `${MAPS}/one`, { headers })).to.include({ status: 200 })
      })

      it('is refused: a thief of the broker’s token without extras', async () => {
        const headers = { authorization: `Bearer ${BROKER_TOKEN}`, 'impersonate-user': WORKER_USER }
        expect(await on.api.send('GET', `${MAPS}/one`, { headers })).to.include({ status: 200 })
        expect(await on.api.send('DELETE', `${MAPS}/one`, { headers })).to.include({ status: 403 })
      })

      it(`is ${isAsked ? 'refused' : 'not known'}: a thief who makes up what he does`, async () => {
        const answer = await probe(madeUp)
        expect(answer.status, answer.text).to.equal(isAsked ? 403 : 201)
      })

      if (isAsked)
        it('is refused while the broker is down, and nobody else waits', async () => {
          const made = await on.broker.make({ method: 'DELETE', target: `${MAPS}/one` })
          await on.broker.down()
          try {
            const refused = await send(made, { method: 'DELETE', target: `${MAPS}/one` })
            expect(refused.status, refused.text).to.equal(500)
            expect(refused.text).to.include('failed calling webhook')
            const others = await probe({ authorization: `Bearer ${OPS_TOKEN}` })
            // before 1.28 the API server cannot tell who asks
            expect(others.status, others.text).to.equal(kubernetesVersion === '1.27' ? 500 : 201)
          } finally {
            await on.broker.up()
          }
          made.over()
        })

      for (const token of [OPS_TOKEN, ADMIN])
        it(`is what others do: ${token}`, async () => {
          const headers = { authorization: `Bearer ${token}` }
          const body = { metadata: { name: 'theirs' } }
          expect(await on.api.send('POST', MAPS, { headers, body })).to.include({ status: 201 })
          expect(await on.api.send('DELETE', `${MAPS}/theirs`, { headers })).to.include({
            status: 200,
          })
          const exec = { headers: { ...headers, ...WEBSOCKET } }
          expect(
            await on.api.send('GET', '/api/v1/namespaces/agents/pods/web-1/exec?command=ls', exec),
          ).to.include({ status: 101 })
        })

      it('is what the account asks about itself', async () => {
        const headers = { authorization: `Bearer ${WORKER_TOKEN}` }
        const body = {
          spec: { resourceAttributes: { verb: 'get', resource: 'pods', namespace: 'agents' } },
        }
        const answer = await on.api.send(
          'POST',
          '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews',
          { headers, body },
        )
        expect(answer.status, answer.text).to.equal(201)
      })
    })
  })
