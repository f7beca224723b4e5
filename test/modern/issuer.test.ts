/** Mode `issuer` on Kubernetes' own newest code, with the files of `nestgate connect` and the broker's own issuer and authorizer. */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { claimsOf, PREFIX } from '../../broker/credentials/tokens.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { ADMIN, WEBSOCKET } from './api-server.ts'
import type { Answer, Sent } from './api-server.ts'
import { CLUSTER } from './broker.ts'
import type { Made, Wanted } from './broker.ts'
import { connectIssuer } from './connected.ts'
import type { Connected } from './connected.ts'

const MAPS = '/api/v1/namespaces/shop/configmaps'
const ONE = `${MAPS}/one`
const RBAC = '/apis/rbac.authorization.k8s.io/v1'
const APPLY = 'application/apply-patch+yaml'
/** How long a refusal may take where the broker cannot be asked, in milliseconds: the API server waits 3 s, and may try again. */
const LONGEST_REFUSAL_MS = 20_000
const WORKER_SUBJECT = { kind: 'ServiceAccount', name: 'worker', namespace: 'agents' }

const rolesOf = async ({ api }: Connected, rules: readonly object[]): Promise<void> => {
  await api.admin('POST', '/api/v1/namespaces', { metadata: { name: 'shop' } })
  await api.admin('POST', MAPS, { metadata: { name: 'one' } })
  await api.admin('POST', '/api/v1/namespaces/shop/pods', {
    ...{ metadata: { name: 'web-1' }, spec: { containers: [{ name: 'web', image: 'web' }] } },
  })
  const namespaced = `${RBAC}/namespaces/shop`
  await api.admin('POST', `${namespaced}/roles`, { metadata: { name: 'work' }, rules })
  await api.admin('POST', `${namespaced}/rolebindings`, {
    metadata: { name: 'work' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'work' },
    subjects: [WORKER_SUBJECT],
  })
}

const RULES = [
  {
    apiGroups: [''],
    resources: ['configmaps'],
    verbs: ['get', 'list', 'watch', 'create', 'update', 'patch', 'delete', 'deletecollection'],
  },
  { apiGroups: [''], resources: ['pods/exec'], verbs: ['get', 'create'] },
]

describe('mode issuer on the newest Kubernetes', function () {
  this.timeout(60_000)
  let on: Connected
  before(async function () {
    this.timeout(1_200_000)
    on = await connectIssuer({ tokens: { ops: ['ops-token'] } })
    await rolesOf(on, RULES)
  })
  after(() => on.close())

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
  /** Sends a request with a credential for it, and ends the credential as the gateway does. */
  const perform = async (
    wanted: Wanted,
    sent?: Sent,
  ): Promise<Answer & { readonly requestId: string }> => {
    const made = await on.broker.make(wanted)
    const answer = await send(made, wanted, sent)
    made.over()
    return { ...answer, requestId: made.requestId }
  }
  const READ = { method: 'GET', target: ONE }

  describe('a request', () => {
    it('is answered, and the audit log has who, for whom and under which id', async () => {
      const { requestId, ...answer } = await perform({ ...READ, approvers: ['sara', 'sven'] })
      expect(answer, answer.text).to.include({ status: 200 })
      const event = await on.api.audit(requestId)
      expect(event.auditID).to.equal(requestId)
      expect(event.user).to.deep.include({
        ...{ username: 'nestgate:serviceaccount:agents:worker', uid: requestId },
        groups: ['system:authenticated'],
      })
      expect(event.user.extra)
        .to.include({})
        .and.to.deep.include({
          'nestgate.dev/request-id': [requestId],
          'nestgate.dev/process': ['planner'],
          'nestgate.dev/approver': ['sara', 'sven'],
        })
    })

    it('has the groups that a rule grants, as names without rights', async () => {
      const { requestId, status } = await perform({ ...READ, grantGroups: ['deployers'] })
      expect(status).to.equal(200)
      const { user } = await on.api.audit(requestId)
      expect(user.groups).to.deep.equal(['nestgate:group:deployers', 'system:authenticated'])
    })

    it('has the rights of a group that a rule grants, for this once', async () => {
      await on.api.admin('POST', `${RBAC}/namespaces/shop/roles`, {
        metadata: { name: 'secrets' },
        rules: [{ apiGroups: [''], resources: ['secrets'], verbs: ['list'] }],
      })
      await on.api.admin('POST', `${RBAC}/namespaces/shop/rolebindings`, {
        metadata: { name: 'secrets' },
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'secrets' },
        subjects: [{ kind: 'Group', apiGroup: 'rbac.authorization.k8s.io', name: 'readers' }],
      })
      const secrets = { method: 'GET', target: '/api/v1/namespaces/shop/secrets' }
      expect(await perform(secrets)).to.include({ status: 403 })
      expect(await perform({ ...secrets, grantGroups: ['readers'] })).to.include({ status: 200 })
    })

    it('is one of a subject, by the rights that the cluster gives its name', async () => {
      const actor = { kind: 'subject', name: 'ci:sara' } as const
      expect(await perform({ ...READ, actor })).to.include({ status: 403 })
      await on.api.admin('POST', `${RBAC}/namespaces/shop/rolebindings`, {
        metadata: { name: 'sara' },
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'work' },
        subjects: [{ kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: actor.name }],
      })
      const { requestId, ...answer } = await perform({ ...READ, actor })
      expect(answer.status, answer.text).to.equal(200)
      expect((await on.api.audit(requestId)).user.username).to.equal('nestgate:subject:ci:sara')
    })

    it('is refused where no role of the cluster allows it', async () => {
      const answer = await perform({
        method: 'GET',
        target: '/api/v1/namespaces/kube-system/configmaps/x',
      })
      expect(answer.status).to.equal(403)
      expect(answer.text).to.include('no role of the cluster allows it')
    })

    const writes: readonly (Wanted & { readonly body?: object; readonly status: number })[] = [
      { method: 'POST', target: MAPS, body: { metadata: { name: 'two' } }, status: 201 },
      { method: 'POST', target: MAPS, body: { metadata: { generateName: 'some-' } }, status: 201 },
      {
        method: 'PUT',
        target: `${MAPS}/two`,
        body: { metadata: { name: 'two' }, data: { a: '1' } },
        status: 200,
      },
      {
        ...{
          method: 'PATCH',
          target: `${MAPS}/three?fieldManager=test`,
          contentType: APPLY,
          status: 201,
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
          target: `${MAPS}/three`,
          contentType: 'application/merge-patch+json',
          status: 200,
        },
        body: { data: { b: '2' } },
      },
      { method: 'DELETE', target: `${MAPS}/three`, status: 200 },
    ]
    for (const { body, status, ...wanted } of writes)
      it(`may be ${wanted.method} ${wanted.target} ${wanted.contentType ?? ''}`, async () => {
        const answer = await perform(wanted, body === undefined ? {} : { body })
        expect(answer.status, answer.text).to.equal(status)
      })

    for (const [method, query] of [
      ['GET', '?limit=1&labelSelector=a%3Db'],
      ['GET', '?fieldSelector=metadata.name%3Done'],
      ['GET', '?watch=true&timeoutSeconds=1'],
      ['GET', '?watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3Done'],
      ['DELETE', '?labelSelector=a%3Db'],
    ] as const)
      it(`may be ${method} ${query}`, async () => {
        const answer = await perform({ method, target: MAPS + query })
        expect(answer.status, answer.text).to.equal(200)
      })

    it('may be a session, about which the API server asks twice', async () => {
      const exec = {
        method: 'GET',
        target: '/api/v1/namespaces/shop/pods/web-1/exec?command=ls&stdout=true',
      }
      const answer = await perform(exec, { headers: { ...WEBSOCKET } })
      expect(answer.status, answer.text).to.equal(101)
    })
  })

  describe('the broker itself', () => {
    const READABLE = ['/api', '/apis', '/api/v1', '/apis/apps/v1', '/version']
    it('may see what the cluster serves, any number of times', async () => {
      const headers = await on.broker.own()
      for (const path of [...READABLE, ...READABLE])
        expect(await on.api.send('GET', path, { headers }), path).to.include({ status: 200 })
      const pod = '/api/v1/namespaces/shop/pods/web-1'
      expect(await on.api.send('GET', pod, { headers })).to.include({ status: 200 })
    })

    it('may ask who somebody is', async () => {
      const headers = await on.broker.own()
      const sent = { headers, body: { spec: { token: 'ops-token' } } }
      const { text } = await on.api.send(
        'POST',
        '/apis/authentication.k8s.io/v1/tokenreviews',
        sent,
      )
      expect(JSON.parse(text)).to.have.nested.property('status.user.username', 'ops')
    })

    for (const [method, path] of [
      ['GET', ONE],
      ['GET', '/api/v1/pods'],
      ['GET', '/api/v1/namespaces/shop/secrets'],
      ['DELETE', '/api/v1/namespaces/shop/pods/web-1'],
      ['GET', '/api/v1/namespaces/shop/pods/web-1/exec'],
      ['GET', '/metrics'],
    ] as const)
      it(`may not ${method} ${path}`, async () => {
        const headers = await on.broker.own()
        const answer = await on.api.send(method, path, { headers })
        expect(answer.status, answer.text).to.equal(403)
      })
  })

  describe('a token', () => {
    it('is good once, also while its request is under way', async () => {
      const made = await on.broker.make(READ)
      expect(await send(made, READ)).to.include({ status: 200 })
      const again = await send(made, READ)
      expect(again.status).to.equal(403)
      expect(again.text).to.include('used already')
      made.over()
      expect((await send(made, READ)).text).to.include('no such request is under way')
    })

    it('is good once where it is used several times at once', async () => {
      const made = await on.broker.make(READ)
      const answers = await Promise.all([1, 2, 3, 4, 5].map(() => send(made, READ)))
      expect(answers.filter(({ status }) => status === 200)).to.have.length(1)
      expect(answers.filter(({ status }) => status === 403)).to.have.length(4)
    })

    const others: readonly Wanted[] = [
      { method: 'GET', target: `${MAPS}/other` },
      { method: 'GET', target: MAPS },
      { method: 'DELETE', target: ONE },
      { method: 'GET', target: '/api/v1/namespaces/shop/secrets/one' },
      { method: 'GET', target: '/api/v1/namespaces/agents/configmaps/one' },
      { method: 'GET', target: '/api/v1/namespaces/shop/pods/web-1/exec?command=ls' },
      { method: 'GET', target: '/version' },
    ]
    for (const other of others)
      it(`for another request is refused: ${other.method} ${other.target}`, async () => {
        const made = await on.broker.make(READ)
        const answer = await send(made, other)
        expect(answer.status, answer.text).to.equal(403)
        // and it still is for its own
        expect(await send(made, READ)).to.include({ status: 200 })
        made.over()
      })

    it('lets nobody be anybody else', async () => {
      const made = await on.broker.make(READ)
      const answer = await send(made, READ, {
        headers: { 'impersonate-user': 'admin', 'impersonate-group': 'system:masters' },
      })
      expect(answer.status).to.equal(403)
      made.over()
    })
  })

  describe('a token that is forged with the broker’s own key', () => {
    /** A token for a request that is under way, with other claims. */
    const forged = async (changes: Record<string, unknown>, cluster = CLUSTER): Promise<Answer> => {
      const made = await on.broker.make(READ)
      const { requestId } = made
      const { issuer } = on.broker
      const subject = 'serviceaccount:agents:worker'
      const facts = {
        cluster,
        subject,
        requestId,
        grantGroups: [],
        process: undefined,
        approvers: [],
      }
      const claims = { ...claimsOf(facts, issuer.url, Date.now()), ...changes }
      const token = await sign(claims)
      const answer = await on.api.send('GET', ONE, {
        headers: { authorization: `Bearer ${token}` },
      })
      made.over()
      return answer
    }
    const sign = async (claims: object): Promise<string> => {
      const key = on.broker.issuer.keys.current()
      const part = (value: object): string =>
        Buffer.from(JSON.stringify(value)).toString('base64url')
      const input = `${part({ alg: 'ES256', typ: 'JWT', kid: key.kid })}.${part(claims)}`
      return `${input}.${Buffer.from(await key.sign(Buffer.from(input))).toString('base64url')}`
    }
    const nowS = (): number => Math.floor(Date.now() / 1000)

    it('is taken when nothing is changed, or these tests would prove nothing', async () => {
      expect(await forged({})).to.include({ status: 200 })
    })

    const wrong: readonly (readonly [string, () => Record<string, unknown>])[] = [
      ['lives too long', () => ({ exp: nowS() + 120 })],
      ['was made long ago', () => ({ iat: nowS() - 100 })],
      ['has begun long ago', () => ({ iat: nowS() - 100, nbf: nowS() - 100 })],
      [
        'says that it was made later than it begins',
        () => ({ iat: nowS() + 100, nbf: nowS() - 100, exp: nowS() + 120 }),
      ],
      [
        'says neither when it was made nor when it begins',
        () => ({ iat: undefined, nbf: undefined }),
      ],
      ['has ended', () => ({ iat: nowS() - 60, nbf: nowS() - 60, exp: nowS() - 1 })],
      ['begins later', () => ({ nbf: nowS() + 600, iat: nowS() + 600, exp: nowS() + 630 })],
      ['has no end', () => ({ exp: undefined })],
      ['is for another audience', () => ({ aud: 'nestgate/green' })],
      ['is of another issuer', () => ({ iss: 'https://127.0.0.1/issuer' })],
      ['has no id', () => ({ jti: undefined })],
      ['has an id that is none', () => ({ jti: 'x' })],
      ['names a group of the cluster’s own', () => ({ groups: ['system:masters'] })],
      ['names it beside one of ours', () => ({ groups: ['group:a', 'system:masters'] })],
      ['has groups that are no list', () => ({ groups: 'system:masters' })],
      ['names a user of the cluster’s own', () => ({ sub: 'system:admin' })],
      ['names nobody', () => ({ sub: '' })],
    ]
    for (const [what, changes] of wrong)
      it(`is not taken when it ${what}`, async () => {
        const answer = await forged(changes())
        expect(answer.status, answer.text).to.equal(401)
      })

    const powerless: readonly (readonly [string, Record<string, unknown>])[] = [
      ['a granted group of that name', { groups: ['group:system:masters'] }],
      ['another service account', { sub: 'serviceaccount:kube-system:admin' }],
      ['a subject of that name', { sub: 'subject:system:admin' }],
      ['the broker', { sub: 'broker' }],
      ['a request that is not under way', { jti: newRequestId(0) }],
    ]
    for (const [what, changes] of powerless)
      it(`may do nothing when it names ${what}`, async () => {
        const answer = await forged(changes)
        expect(answer.status, answer.text).to.equal(403)
      })
  })

  describe('a broker that is down', () => {
    after(() => on.broker.up().catch(() => undefined))

    it('lets nothing of its own through, and stops nobody else', async () => {
      const made = await on.broker.make(READ)
      await on.broker.down()
      try {
        const began = Date.now()
        const answer = await send(made, READ)
        // an authorizer that denies because it could not be asked (filters/authorization.go)
        expect(answer.status, answer.text).to.equal(500)
        expect(Date.now() - began).to.be.below(LONGEST_REFUSAL_MS)
        for (const token of [ADMIN, 'ops-token'])
          expect(
            await on.api.send('GET', '/api', { headers: { authorization: `Bearer ${token}` } }),
          ).to.include({ status: 200 })
      } finally {
        await on.broker.up()
      }
      made.over()
      expect(await perform(READ)).to.include({ status: 200 })
    })

    it('does not answer: the same', async () => {
      const made = await on.broker.make(READ)
      on.broker.hang(true)
      const began = Date.now()
      const answer = await send(made, READ)
      on.broker.hang(false)
      made.over()
      expect(answer.status, answer.text).to.equal(500)
      expect(Date.now() - began).to.be.below(LONGEST_REFUSAL_MS)
    })
  })

  describe('a role that somebody bound to a name of nestgate:', () => {
    const SECRETS = { method: 'GET', target: '/api/v1/namespaces/shop/secrets' }
    before(() =>
      on.api.admin('POST', `${RBAC}/clusterrolebindings`, {
        metadata: { name: 'mistake' },
        roleRef: {
          ...{ apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole' },
          name: 'cluster-admin',
        },
        subjects: [
          {
            ...{ kind: 'User', apiGroup: 'rbac.authorization.k8s.io' },
            name: `${PREFIX}serviceaccount:agents:worker`,
          },
        ],
      }),
    )
    after(() => on.api.admin('DELETE', `${RBAC}/clusterrolebindings/mistake`))

    it('lets nothing through that the broker refuses', async () => {
      const { status, text } = await perform(SECRETS)
      expect(status, text).to.equal(403)
    })

    it('lets nothing through while the broker cannot be asked', async () => {
      const made = await on.broker.make(SECRETS)
      await on.broker.down()
      const { status, text } = await send(made, SECRETS)
      await on.broker.up()
      made.over()
      expect(status, text).to.equal(500)
    })
  })

  describe('another key', () => {
    it('is taken at once, and the old one is not any more', async () => {
      const old = await on.broker.make(READ)
      await on.broker.issuer.keys.replace()
      const answer = await perform(READ)
      expect(answer.status, answer.text).to.equal(200)
      const gone = await send(old, READ)
      expect(gone.status, gone.text).to.equal(401)
      old.over()
    })
  })
})

for (const kubernetesVersion of ['1.30', '1.31', '1.32', '1.33', '1.34', '1.35'])
  describe(`the files for ${kubernetesVersion}`, function () {
    this.timeout(60_000)
    it('are read, and a token is good once', async () => {
      const on = await connectIssuer({ kubernetesVersion })
      try {
        await rolesOf(on, RULES)
        const made = await on.broker.make({ method: 'GET', target: ONE })
        const headers = { ...made.headers }
        expect(await on.api.send('GET', ONE, { headers })).to.include({ status: 200 })
        expect(await on.api.send('GET', ONE, { headers })).to.include({ status: 403 })
      } finally {
        await on.close()
      }
    })
  })
