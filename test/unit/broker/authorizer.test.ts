import { expect } from 'chai'
import { describe, it } from 'mocha'
import type { Access } from '../../../broker/credentials/access.ts'
import type { Actor } from '../../../broker/credentials/actor.ts'
import { callOf } from '../../../broker/credentials/api-call.ts'
import type { AskedConnection } from '../../../broker/credentials/cluster-json.ts'
import { createAuthorizer } from '../../../broker/credentials/authorizer.ts'
import type { Opinion } from '../../../broker/credentials/authorizer.ts'
import type { Refused } from '../../../broker/credentials/refused-record.ts'
import { createOwnCalls } from '../../../broker/credentials/own-calls.ts'
import { createTickets, TICKET_LIFE_MS } from '../../../broker/credentials/tickets.ts'
import { newRequestId } from '../../../shared/request-id.ts'

const WORKER: Actor = { kind: 'serviceAccount', namespace: 'agents', serviceAccount: 'worker' }
const USER = 'nestgate:serviceaccount:agents:worker'
const POD = '/api/v1/namespaces/shop/pods/web'
const POD_ATTRIBUTES = {
  group: '',
  version: 'v1',
  resource: 'pods',
  namespace: 'shop',
  name: 'web',
}
const CONNECTION = { name: 'prod' } as AskedConnection

type Fields = Record<string, unknown>

/** An authorizer with one request under way, and a clock that stands still. */
function setUp(options: {
  readonly method?: string
  readonly target?: string
  readonly contentType?: string
  readonly grantGroups?: readonly string[]
  readonly access?: Access
}) {
  const {
    method = 'DELETE',
    target = POD,
    contentType,
    grantGroups = [],
    access = 'allowed',
  } = options
  const clock = { ms: 1_700_000_000_000 }
  const now = () => clock.ms
  const tickets = createTickets(now)
  const ownCalls = createOwnCalls(now)
  const requestId = newRequestId(now())
  const need = {
    ...{ requestId, actor: WORKER, grantGroups, process: 'planner', approvers: ['sara'] },
    call: callOf(method, target, contentType),
  }
  const ticket = tickets.open('prod', need)
  if (ticket === undefined) throw new Error('no room')
  const refused: Refused[] = []
  const asked: unknown[] = []
  const authorizer = createAuthorizer({
    ...{ tickets, ownCalls, onRefused: (one) => refused.push(one) },
    access: {
      check: (_connection, identity, call) => {
        asked.push([identity, call])
        return Promise.resolve(access)
      },
    },
  })
  const ask = (spec: Fields, connection = CONNECTION): Promise<Opinion | undefined> =>
    authorizer.opinion(connection, {
      apiVersion: 'authorization.k8s.io/v1',
      kind: 'SubjectAccessReview',
      spec,
    })
  const specOf = (attributes: Fields, more: Fields = {}): Fields => ({
    user: USER,
    groups: ['system:authenticated'],
    extra: { 'nestgate.dev/request-id': [requestId] },
    resourceAttributes: attributes,
    ...more,
  })
  return { ask, specOf, tickets, ticket, ownCalls, clock, refused, asked, requestId, authorizer }
}

const DELETE = { verb: 'delete', ...POD_ATTRIBUTES }
const why = (opinion: Opinion | undefined): string =>
  opinion !== undefined && !opinion.allowed && opinion.denied ? opinion.reason : 'not denied'

describe('the authorization webhook', () => {
  it('allows the request that is under way, by what the cluster’s roles say of its actor', async () => {
    const { ask, specOf, asked, requestId } = setUp({ grantGroups: ['deployers'] })
    const groups = ['nestgate:group:deployers', 'system:authenticated']
    expect(await ask(specOf(DELETE, { groups }))).to.deep.equal({
      allowed: true,
      reason: `nestgate: request ${requestId}`,
    })
    expect(asked).to.deep.equal([
      [
        {
          user: 'system:serviceaccount:agents:worker',
          groups: ['system:serviceaccounts', 'system:serviceaccounts:agents', 'deployers'],
        },
        { ...DELETE, subresource: '', nonResourcePath: '' },
      ],
    ])
  })

  it('allows it once, also when two ask at the same time', async () => {
    const { ask, specOf, refused, requestId } = setUp({})
    const both = await Promise.all([ask(specOf(DELETE)), ask(specOf(DELETE))])
    expect(both.map((one) => one?.allowed)).to.deep.equal([true, false])
    expect(why(both[1])).to.contain('used already')
    expect(refused).to.deep.equal([
      {
        ...{ cluster: 'prod', requestId, why: 'the credential was used already' },
        asked: 'delete /pods/ shop/web',
      },
    ])
  })

  it('lets an aggregated API ask once more, and not twice', async () => {
    const target = '/apis/metrics.example/v1/namespaces/shop/things/web'
    const { ask, specOf } = setUp({ method: 'GET', target })
    const attributes = {
      ...{ verb: 'get', group: 'metrics.example', version: 'v1' },
      ...{ resource: 'things', namespace: 'shop', name: 'web' },
    }
    const said: unknown[] = []
    for (let i = 0; i < 3; i += 1) said.push((await ask(specOf(attributes)))?.allowed)
    expect(said).to.deep.equal([true, true, false])
  })

  it('lets it ask once more about what it serves, too', async () => {
    for (const [path, times] of [
      ['/apis/metrics.example/v1', 2],
      ['/apis/metrics.example', 2],
      ['/apis/apps/v1', 1],
      ['/apis', 1],
      ['/version', 1],
    ] as const) {
      const { ask, specOf } = setUp({ method: 'GET', target: path })
      const more = { resourceAttributes: undefined, nonResourceAttributes: { verb: 'get', path } }
      let allowed = 0
      for (let i = 0; i < 3; i += 1)
        if ((await ask(specOf({}, more)))?.allowed === true) allowed += 1
      expect(allowed, path).to.equal(times)
    }
  })

  const OTHERS: readonly (readonly [string, Fields])[] = [
    ['another verb', { verb: 'get' }],
    ['another name', { name: 'db' }],
    ['no name', { name: '' }],
    ['another namespace', { namespace: 'kube-system' }],
    ['another resource', { resource: 'secrets' }],
    ['a subresource', { subresource: 'exec', verb: 'create' }],
    ['another group', { group: 'apps' }],
    ['another version', { version: 'v2' }],
    ['creation of it', { verb: 'create' }],
    ['impersonation', { verb: 'impersonate', resource: 'users', name: 'admin' }],
    ['everything', { verb: '*', resource: '*', group: '*', name: '', namespace: '' }],
  ]
  for (const [what, change] of OTHERS) {
    it(`refuses ${what} under the same id`, async () => {
      const { ask, specOf, ticket } = setUp({})
      const said = await ask(specOf({ ...DELETE, ...change }))
      expect(why(said)).to.contain('another request')
      expect(ticket.uses).to.equal(0)
    })
  }

  it('refuses a path outside the resource API, also the path of the request itself', async () => {
    const { ask, specOf } = setUp({})
    for (const path of ['/metrics', POD]) {
      const more = { resourceAttributes: undefined, nonResourceAttributes: { verb: 'get', path } }
      expect(why(await ask(specOf({}, more)))).to.contain('another request')
    }
  })

  it('allows a path outside the resource API where that is the request', async () => {
    const { ask, specOf } = setUp({ method: 'GET', target: '/metrics' })
    const review = { verb: 'get', path: '/metrics' }
    const more = { resourceAttributes: undefined, nonResourceAttributes: review }
    expect((await ask(specOf({}, more)))?.allowed).to.equal(true)
  })

  const FOR_OTHERS: readonly (readonly [string, Fields])[] = [
    ['another name of ours', { user: 'nestgate:serviceaccount:agents:admin' }],
    ['a subject of that name', { user: 'nestgate:subject:serviceaccount:agents:worker' }],
    ['the broker itself', { user: 'nestgate:broker' }],
    ['a group that was not granted', { groups: ['nestgate:group:admins'] }],
    ['system:masters beside', { groups: ['system:masters', 'system:authenticated'] }],
    ['a group that is not ours', { groups: ['deployers'] }],
  ]
  for (const [what, change] of FOR_OTHERS) {
    it(`refuses the id for ${what}`, async () => {
      const { ask, specOf } = setUp({})
      expect(why(await ask(specOf(DELETE, change)))).to.match(/somebody else|under way/)
    })
  }

  it('refuses a request whose granted group is missing', async () => {
    const { ask, specOf } = setUp({ grantGroups: ['deployers'] })
    expect(why(await ask(specOf(DELETE)))).to.contain('somebody else')
  })

  const IDS: readonly (readonly [string, Fields])[] = [
    ['none', {}],
    ['one that is none', { 'nestgate.dev/request-id': ['x'] }],
    ['two', { 'nestgate.dev/request-id': [newRequestId(1), newRequestId(2)] }],
  ]
  for (const [what, extra] of IDS) {
    it(`refuses a name of ours with ${what} as request id`, async () => {
      const { ask, specOf } = setUp({})
      expect(why(await ask(specOf(DELETE, { extra })))).to.contain('no request id')
    })
  }

  it('takes the id from a group where the API server knows no extras, and not a different one', async () => {
    const { ask, specOf, requestId } = setUp({})
    const groups = [`nestgate:request:${requestId}`, 'nestgate:process:planner']
    expect((await ask(specOf(DELETE, { extra: undefined, groups })))?.allowed).to.equal(true)
    const other = [`nestgate:request:${newRequestId(1)}`]
    expect(why(await ask(specOf(DELETE, { groups: other })))).to.contain('no request id')
  })

  it('refuses an id that nobody has, one of another cluster, one that is over, and one of long ago', async () => {
    const { ask, specOf, tickets, ticket, clock } = setUp({})
    const extra = { 'nestgate.dev/request-id': [newRequestId(1)] }
    expect(why(await ask(specOf(DELETE, { extra })))).to.contain('under way')
    const elsewhere = await ask(specOf(DELETE), { name: 'staging' } as AskedConnection)
    expect(why(elsewhere)).to.contain('under way')
    clock.ms += TICKET_LIFE_MS
    expect(why(await ask(specOf(DELETE)))).to.contain('under way')
    clock.ms -= TICKET_LIFE_MS
    tickets.close(ticket)
    expect(why(await ask(specOf(DELETE)))).to.contain('under way')
  })

  it('refuses what the cluster’s roles do not allow, and where they cannot be asked', async () => {
    for (const [access, text] of [
      ['refused', 'no role'],
      ['unknown', 'could not be asked'],
    ] as const) {
      const { ask, specOf } = setUp({ access })
      expect(why(await ask(specOf(DELETE)))).to.contain(text)
    }
  })

  it('has no opinion on names that are not ours, and records nothing', async () => {
    const { ask, specOf, refused } = setUp({})
    for (const user of ['alice', '', 'system:admin', 'Nestgate:x']) {
      expect(await ask(specOf(DELETE, { user }))).to.deep.equal({
        ...{ allowed: false, denied: false, reason: '' },
      })
    }
    expect(refused).to.deep.equal([])
  })

  describe('asked beside a request', () => {
    const PUT = { method: 'PUT' }
    const APPLY = { method: 'PATCH', contentType: 'application/apply-patch+yaml' }
    const EXEC = { method: 'GET', target: `${POD}/exec?command=ls` }
    const CASES: readonly (readonly [string, Parameters<typeof setUp>[0], Fields, boolean])[] = [
      ['creation in a PUT', PUT, { verb: 'create' }, true],
      ['creation in a server-side apply', APPLY, { verb: 'create' }, true],
      ['a POST beside it, whose body names anything', APPLY, { verb: 'create', name: '' }, false],
      ['a POST beside a PUT', PUT, { verb: 'create', name: '' }, false],
      ['creation of another object in it', APPLY, { verb: 'create', name: 'db' }, false],
      ['creation in another namespace', APPLY, { verb: 'create', namespace: 'x' }, false],
      ['creation in another patch', { method: 'PATCH' }, { verb: 'create' }, false],
      ['the session as create', EXEC, { verb: 'create', subresource: 'exec' }, true],
      [
        'a POST beside a GET of what is proxied',
        { method: 'GET', target: `${POD}/proxy/x` },
        { verb: 'create', subresource: 'proxy' },
        false,
      ],
      ['another session', EXEC, { verb: 'create', subresource: 'attach' }, false],
      ['escalate', PUT, { verb: 'escalate', resource: 'roles' }, true],
      ['finalizers of an owner', PUT, { verb: 'update', subresource: 'finalizers' }, true],
      [
        'finalizers in a read',
        { method: 'GET' },
        { verb: 'update', subresource: 'finalizers' },
        false,
      ],
    ]
    for (const [what, request, change, allowed] of CASES) {
      it(`${allowed ? 'allows' : 'refuses'} ${what}`, async () => {
        const { ask, specOf, ticket } = setUp(request)
        const said = await ask(specOf({ verb: 'get', ...POD_ATTRIBUTES, ...change }))
        expect(said?.allowed).to.equal(allowed)
        expect(ticket.uses).to.equal(0)
      })
    }

    for (const [what, request, change] of [
      ['the session', EXEC, { subresource: 'exec' }],
      ['the object', PUT, {}],
    ] as const)
      it(`is once whether ${what} may be created: a second time would be another request`, async () => {
        const { ask, specOf } = setUp(request)
        const spec = specOf({ ...POD_ATTRIBUTES, ...change, verb: 'create' })
        expect((await ask(spec))?.allowed).to.equal(true)
        expect(why(await ask(spec))).to.contain('used already')
      })

    it('is bounded', async () => {
      const { ask, specOf } = setUp(PUT)
      let last: Opinion | undefined
      for (let i = 0; i < 65; i += 1) last = await ask(specOf({ verb: 'use', resource: 'x' }))
      expect(why(last)).to.contain('too many')
    })
  })

  describe('about the broker itself', () => {
    const own = async (change: Fields, more: Fields = {}): Promise<Opinion | undefined> => {
      const { ask, specOf, ownCalls } = setUp({})
      const extra = { 'nestgate.dev/request-id': [ownCalls.idFor('prod')] }
      return ask(specOf(change, { user: 'nestgate:broker', extra, ...more }))
    }
    const path = (text: string, verb = 'get'): Fields => ({
      resourceAttributes: undefined,
      nonResourceAttributes: { verb, path: text },
    })

    it('allows what it must know', async () => {
      const reviews = [
        { verb: 'create', group: 'authentication.k8s.io', resource: 'tokenreviews' },
        { verb: 'create', group: 'authorization.k8s.io', resource: 'subjectaccessreviews' },
        { verb: 'get', resource: 'pods', namespace: 'a', name: 'p' },
      ]
      for (const review of reviews) expect((await own(review))?.allowed).to.equal(true)
      for (const text of ['/api', '/apis/apps/v1', '/openid/v1/jwks', '/version'])
        expect((await own({}, path(text)))?.allowed, text).to.equal(true)
    })

    it('refuses all else', async () => {
      const calls = [
        { verb: 'list', resource: 'pods', namespace: 'a' },
        { verb: 'get', resource: 'pods', namespace: 'a' },
        { verb: 'get', resource: 'pods', subresource: 'exec', namespace: 'a', name: 'p' },
        { verb: 'get', resource: 'secrets', namespace: 'a', name: 's' },
        { verb: 'get', group: 'metrics.k8s.io', resource: 'pods', namespace: 'a', name: 'p' },
        { verb: 'create', resource: 'serviceaccounts', subresource: 'token', name: 'x' },
        { verb: 'impersonate', resource: 'users', name: 'x' },
      ]
      for (const call of calls)
        expect(why(await own(call)), call.resource).to.contain('no such right')
      for (const [text, verb] of [
        ['/api', 'post'],
        ['/logs/x', 'get'],
        ['/metrics', 'get'],
        ['/apis/a/b/c', 'get'],
      ] as const)
        expect(why(await own({}, path(text, verb))), text).to.contain('no such right')
    })

    it('knows its own id at its own cluster only, and for half a minute', async () => {
      const { ask, specOf, ownCalls, clock } = setUp({})
      const id = ownCalls.idFor('prod')
      expect(ownCalls.idFor('prod')).to.equal(id)
      expect(ownCalls.idFor('staging')).to.not.equal(id)
      const extra = { 'nestgate.dev/request-id': [id] }
      const spec = specOf({}, { user: 'nestgate:broker', extra, ...path('/api') })
      expect(why(await ask(spec, { name: 'staging' } as AskedConnection))).to.contain('under way')
      clock.ms += TICKET_LIFE_MS - 1
      expect(ownCalls.idFor('prod')).to.not.equal(id)
      expect((await ask(spec))?.allowed).to.equal(true)
      clock.ms += 1
      expect(why(await ask(spec))).to.contain('under way')
    })

    it('makes another id when the clock was set back, for the token of the old one has ended', () => {
      const { ownCalls, clock } = setUp({})
      const id = ownCalls.idFor('prod')
      clock.ms -= 3_600_000
      expect(ownCalls.idFor('prod')).to.not.equal(id)
    })
  })

  for (const [what, review] of [
    ['nothing', undefined],
    ['another kind', { apiVersion: 'v1', kind: 'Pod' }],
    [
      'v1beta1',
      { apiVersion: 'authorization.k8s.io/v1beta1', kind: 'SubjectAccessReview', spec: {} },
    ],
    [
      'a spec that is none',
      { apiVersion: 'authorization.k8s.io/v1', kind: 'SubjectAccessReview', spec: 3 },
    ],
  ] as const) {
    it(`does not answer ${what}`, async () => {
      expect(await setUp({}).authorizer.opinion(CONNECTION, review)).to.equal(undefined)
    })
  }
})
