/** The OpenAPI document against the running broker: its routes, and what they really answer. */
import { createHash } from 'node:crypto'
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { createApp } from '../../broker/api/api.ts'
import type { ApiDeps } from '../../broker/api/api.ts'
import { openApiDocument } from '../../broker/api/openapi/document.ts'
import { OPERATIONS } from '../../broker/api/openapi/operations.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'
import { facts, intent } from '../support/entries.ts'
import { validator } from '../support/open-api.ts'
import type { OpenApi, OperationObject } from '../support/open-api.ts'
import { policyOf } from '../support/policies.ts'
import { MemorySessions, Tape, session, TOTALS } from '../support/memory-sessions.ts'
import { SILENT } from '../support/sqlite-store.ts'
import { startUpstream } from '../support/upstream.ts'
import type { Upstream } from '../support/upstream.ts'

/** How a test calls an operation. */
interface Call {
  readonly as?: string
  readonly path?: Readonly<Record<string, string>>
  readonly query?: string
  readonly body?: unknown
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

const RULES = `
  - id: scan
    match: { agents: [scanner], verbs: [get], resources: [secrets] }
    effect: allow
`
const OTHER_RULES = `
  - id: other
    match: { agents: [other], verbs: [get], resources: [pods] }
    effect: allow
`
const DAY_MS = 24 * 3600 * 1000

describe('the OpenAPI document', () => {
  let api: ApiServer
  let upstream: Upstream
  let secrets: string
  const sessions = new MemorySessions()
  let document: OpenApi
  let policy = policyOf(RULES)

  before(async () => {
    upstream = await startUpstream()
    secrets = mkdtempSync(join(tmpdir(), 'nestgate-secrets-'))
    copyFileSync(upstream.tokenFile, join(secrets, 'token'))
    const common = {
      ...{ server: upstream.url, caFile: upstream.caFile },
      serviceAccountTokens: { verify: 'tokenReview' as const },
    }
    api = await startApi(undefined, undefined, {
      sessions,
      accessReview: {
        policy: () => policy,
        scopes: { get: () => undefined },
        acceptVerdicts: ['exclusive'],
        registrations: [],
      },
      issuer: { url: 'https://broker.example:8443/issuer' },
      clusterSecretsDir: secrets,
      clusters: [
        {
          ...{ ...common, name: 'main' },
          credential: { issuer: { authorizerTokenSha256: sha256('authorizer') } },
        },
        { ...common, name: 'old', credential: { tokenFile: upstream.tokenFile } },
      ],
    })
    document = (await (await fetch(`${api.url}/v1/openapi.json`)).json()) as OpenApi
  })
  after(async () => {
    await api.close()
    await upstream.close()
    rmSync(secrets, { recursive: true })
  })

  it('is served to anybody, and is the file in docs/ (node scripts/update-openapi-doc.ts)', () => {
    const file = new URL('../../docs/openapi.json', import.meta.url)
    expect(document).to.deep.equal(JSON.parse(readFileSync(file, 'utf8')))
    expect(document).to.deep.equal(openApiDocument())
  })

  it('names every operation once, and refers to nothing that is not there', () => {
    const ids = OPERATIONS.map(({ id }) => id)
    expect(new Set(ids).size).to.equal(ids.length)
    for (const [, name = ''] of JSON.stringify(document).matchAll(
      /"#\/components\/schemas\/(\w+)"/g,
    ))
      expect(document.components.schemas).to.have.property(name)
    for (const [path, operations] of Object.entries(document.paths))
      for (const { parameters } of Object.values(operations)) {
        const named = parameters.filter((one) => one.in === 'path').map(({ name }) => `{${name}}`)
        expect(path.match(/\{\w+\}/g) ?? []).to.deep.equal(named)
        expect(
          parameters.every((one) => !('description' in one) || one.description !== one.name),
        ).to.equal(true)
      }
  })

  it('has every route of the broker, and no other', () => {
    const { approvals, store, credentials, clusters, checkpoints } = api
    const deps = {
      ...{
        approvals,
        store,
        credentials,
        clusters,
        checkpoints,
        log: SILENT,
        now: Date.now,
        issuers: [],
      },
      ...{ people: { authenticate: () => Promise.reject(new Error('not to be called')) } },
      ...{ sidecars: undefined, policy: undefined, clusterSecretsDir: undefined, accessReview: {} },
      sessions,
    } as unknown as ApiDeps
    interface Layer {
      readonly route?: {
        readonly path: string
        readonly methods: Readonly<Record<string, boolean>>
      }
      readonly handle: { readonly stack?: readonly Layer[] }
      match(path: string): boolean
    }
    const routesOf = (stack: readonly Layer[], prefix: string): string[] =>
      stack.flatMap((layer) => {
        if (layer.route === undefined) {
          const isBelow = layer.match('/v1/x') && !layer.match('/v2/x')
          return routesOf(layer.handle.stack ?? [], isBelow ? `${prefix}/v1` : prefix)
        }
        const { path, methods } = layer.route
        const place = prefix + path.replaceAll(/[:*](\w+)/g, '{$1}')
        return Object.keys(methods).map((method) => `${method} ${place}`)
      })
    const stack = (createApp(deps) as unknown as { router: { stack: readonly Layer[] } }).router
      .stack
    const routes = routesOf(stack, '').filter((one) => one.includes(' /v1/'))
    const documented = Object.entries(document.paths).flatMap(([path, operations]) =>
      Object.keys(operations).map((method) => `${method} ${path}`),
    )
    expect(routes).to.have.length.greaterThan(25)
    expect(documented).to.have.members(routes)
  })

  const hold = async (): Promise<string> => {
    const asked = await api.approvals.ask(facts({ owners: [] }), [])
    if (isRefusal(asked)) throw new Error(asked.refused)
    return asked.approval.id
  }
  const record = (state: 'ended' | 'running' = 'ended'): string => {
    const one = session({ state, totals: TOTALS, result: { status: 'Success' } })
    const tape = new Tape(one).out(5, 'hello\n').json('end', 9, TOTALS)
    return sessions.add(one, tape).id
  }
  const decide = { body: { reason: 'looks right' } }
  const cluster = (name: string): object => ({
    ...{ name, server: upstream.url, ca: readFileSync(upstream.caFile, 'utf8') },
    ...{ credential: { tokenFile: 'token' }, serviceAccountTokens: { verify: 'tokenReview' } },
  })
  const period = {
    since: new Date(Date.now() - DAY_MS).toISOString(),
    until: new Date(Date.now() + DAY_MS).toISOString(),
  }
  const campaign = { title: 'autumn', ...period, reviewers: ['alice'] }
  /** Opens a campaign, whose first item is decided on. */
  const campaignOf = async (verdict?: string): Promise<string> => {
    policy = policyOf(RULES)
    const opened = await send('post', '/v1/campaigns', { as: 'token-carol', body: campaign })
    const { id } = (await opened.json()) as { id: string }
    if (verdict !== undefined)
      await send('post', `/v1/campaigns/${id}/items/00001/decide`, {
        ...{ as: 'token-alice', body: { verdict, reason: 'x' } },
      })
    return id
  }
  /** One call for each operation; each makes what it needs. */
  const calls: Readonly<Record<string, () => Promise<Call> | Call>> = {
    showOpenApi: () => ({}),
    showLogin: () => ({}),
    showMe: () => ({ as: 'token-bob' }),
    showPolicy: () => ({ as: 'token-bob' }),
    showIssuer: () => ({ as: 'token-bob' }),
    replaceIssuerKey: () => ({ as: 'token-root' }),
    registerSidecar: () => ({ as: 'pod-1', body: { proof: 'good' } }),
    showPodState: () => ({ as: 'pod-1' }),
    waitForRequest: async () => ({ as: 'pod-1', path: { id: await hold() }, query: 'wait=0' }),
    cancelRequest: async () => ({ as: 'pod-1', path: { id: await hold() } }),
    parkRequest: async () => ({ as: 'pod-1', path: { id: await hold() } }),
    listApprovals: async () => {
      await hold()
      return { as: 'token-carol', query: 'state=PENDING&limit=5&cluster=main' }
    },
    watchApprovals: () => ({ as: 'token-alice' }),
    showApproval: async () => {
      const quorums = [{ group: 'sre', count: 2 }]
      const preview = { kind: 'diff', text: '-a' } as const
      const asked = await api.approvals.ask(facts({ terms: { quorums }, preview }), [])
      if (isRefusal(asked)) throw new Error(asked.refused)
      const { id } = asked.approval
      const bob = { reviewer: 'bob', groups: ['sre'], approve: true, reason: 'yes' }
      await api.approvals.decide({ id, ...bob })
      return { as: 'token-alice', path: { id } }
    },
    showContext: async () => {
      await api.store.append([intent()])
      return { as: 'token-alice', path: { id: await hold() } }
    },
    approveApproval: async () => ({ as: 'token-alice', path: { id: await hold() }, ...decide }),
    denyApproval: async () => ({ as: 'token-alice', path: { id: await hold() }, ...decide }),
    revokeApproval: async () => {
      const id = await hold()
      await api.approvals.decide({ id, reviewer: 'bob', approve: true, reason: 'yes' })
      return { as: 'token-alice', path: { id }, ...decide }
    },
    reviewApproval: async () => {
      const { approval } = await api.approvals.open(facts(), [])
      await api.approvals.finish(approval.id, 'SUCCEEDED')
      const body = { reason: 'fire', verdict: 'justified' }
      return { as: 'token-alice', path: { id: approval.id }, body }
    },
    listEvents: async () => {
      await api.store.append([intent(), intent()])
      return { as: 'token-carol', query: 'kind=intent&limit=1&process=/usr/bin/kubectl' }
    },
    showEvent: () => ({ as: 'token-carol', path: { seq: '0' } }),
    watchEvents: () => ({ as: 'token-carol', query: 'after=0' }),
    exportEvents: () => ({ as: 'token-carol', query: 'format=ocsf&to=1' }),
    showCheckpoint: () => ({}),
    showLedgerKeys: () => ({}),
    showCosigned: () => ({}),
    showConsistency: () => ({ query: 'from=0' }),
    showProof: () => ({ as: 'token-carol', path: { seq: '0' } }),
    showBundle: async () => {
      await api.checkpoints.current()
      return { as: 'token-carol', path: { path: '000.p/1' } }
    },
    showTile: async () => {
      await api.checkpoints.current()
      return { path: { path: '0/000.p/1' } }
    },
    erasePerson: () => ({ as: 'token-root', body: { name: 'nobody at all', reason: 'asked' } }),
    showPayload: async () => {
      const content = Buffer.from('{"kind":"Pod"}')
      const hash = createHash('sha256').update(content).digest('hex')
      await api.store.append([intent()], [{ sha256: hash, content }])
      return { as: 'token-carol', path: { sha256: hash } }
    },
    reportAccess: async () => {
      const did = { credential: { mode: 'issuer', user: 'x' } } as const
      await api.store.append([intent({ agent: 'scanner', chain: [], ...did })])
      return { as: 'token-carol', query: new URLSearchParams(period).toString() }
    },
    listCampaigns: async () => {
      await campaignOf()
      return { as: 'token-bob', query: 'limit=1' }
    },
    openCampaign: () => ({ as: 'token-carol', body: campaign }),
    showCampaign: async () => ({ as: 'token-bob', path: { id: await campaignOf('certify') } }),
    listItems: async () => ({
      ...{ as: 'token-alice', path: { id: await campaignOf('certify') } },
      query: 'state=decided&mine=true',
    }),
    decideItem: async () => ({
      ...{ as: 'token-alice', path: { id: await campaignOf(), item: '00001' } },
      body: { verdict: 'exception', reason: 'x', expiresAt: period.until },
    }),
    remediateItem: async () => {
      const id = await campaignOf('revoke')
      policy = policyOf(OTHER_RULES)
      const body = { policyDigest: policy.digest }
      return { as: 'token-carol', path: { id, item: '00001' }, body }
    },
    signOffCampaign: async () => ({
      ...{ as: 'token-carol', path: { id: await campaignOf('certify') }, body: { reason: 'x' } },
    }),
    cancelCampaign: async () => ({
      ...{ as: 'token-carol', path: { id: await campaignOf() }, body: { reason: 'x' } },
    }),
    listSessions: () => {
      record()
      return { as: 'token-bob', query: 'state=ended&limit=1&kind=exec' }
    },
    grepSessions: () => {
      record()
      return { as: 'token-carol', query: 'text=LLO&ignoreCase=true&cluster=main' }
    },
    showSession: () => ({ as: 'token-bob', path: { id: record() } }),
    showRecording: () => ({ as: 'token-carol', path: { id: record() } }),
    showAsciicast: () => ({ as: 'token-carol', path: { id: record() } }),
    showDetails: () => ({ as: 'token-carol', path: { id: record() } }),
    showSealed: () => ({ as: 'token-carol', path: { id: record() } }),
    followSession: () => ({ as: 'token-bob', path: { id: record('running') }, query: 'from=0' }),
    killSession: () => ({ as: 'token-bob', path: { id: record('running') }, ...decide }),
    viewSession: () => ({ as: 'token-carol', path: { id: record() } }),
    listClusters: () => ({ as: 'token-bob' }),
    registerCluster: () => ({ as: 'token-root', body: cluster('new') }),
    changeCluster: async () => {
      await send('post', '/v1/clusters', { as: 'token-root', body: cluster('second') })
      return { as: 'token-root', path: { name: 'second' }, body: cluster('second') }
    },
    removeCluster: async () => {
      await send('post', '/v1/clusters', { as: 'token-root', body: cluster('third') })
      return { as: 'token-root', path: { name: 'third' } }
    },
    checkCluster: () => {
      upstream.onRequest = (_request, response) => {
        response.setHeader('Content-Type', 'application/json')
        response.end(JSON.stringify({ major: '1', minor: '33', gitVersion: 'v1.33.0' }))
      }
      return { as: 'token-root', path: { name: 'old' } }
    },
    authorize: () => {
      const spec = { user: 'x', resourceAttributes: { verb: 'get', resource: 'pods' } }
      const body = { apiVersion: 'authorization.k8s.io/v1', kind: 'SubjectAccessReview', spec }
      return { as: 'authorizer', path: { name: 'main' }, body }
    },
    admit: () => {
      const gvr = { group: '', version: 'v1', resource: 'pods' }
      const request = {
        ...{ uid: 'u', operation: 'CREATE', resource: gvr, requestResource: gvr },
        ...{ name: 'x', namespace: 'shop', userInfo: { username: 'somebody' } },
      }
      const body = { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', request }
      return { path: { name: 'old' }, body }
    },
  }

  const send = (
    method: string,
    path: string,
    call: Call,
    signal?: AbortSignal,
  ): Promise<Response> => {
    const place = path.replaceAll(/\{(\w+)\}/g, (_, name: string) => call.path?.[name] ?? '')
    const query = call.query === undefined ? '' : `?${call.query}`
    return fetch(api.url + place + query, {
      method: method.toUpperCase(),
      headers: {
        ...(call.as === undefined ? {} : { authorization: `Bearer ${call.as}` }),
        ...(call.body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) }),
      ...(signal === undefined ? {} : { signal }),
    })
  }
  /** The first event of a stream. */
  const firstEvent = async (response: Response): Promise<{ name: string; data: unknown }> => {
    let text = ''
    for await (const chunk of response.body ?? []) {
      text += Buffer.from(chunk as Uint8Array).toString()
      const [, name = '', data = ''] = /event: (\w+)\ndata: (.+)\n\n/.exec(text) ?? []
      if (name === 'events') return { name, data }
      if (name !== '') return { name, data: JSON.parse(data) as unknown }
    }
    throw new Error('no event')
  }
  const operations = Object.entries(openApiDocument()['paths'] as OpenApi['paths']).flatMap(
    ([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  )
  /** Whoever calls must have what the document says, and nobody else gets an answer. */
  const wrongCaller = ({ security }: OperationObject): string | undefined =>
    security.length === 0 ? undefined : 'nobody'

  for (const { path, method, operation } of operations) {
    it(`says what ${method.toUpperCase()} ${path} answers`, async () => {
      const make = calls[operation.operationId]
      if (make === undefined) throw new Error(`no call for ${operation.operationId}`)
      const call = await make()
      expect(call.body !== undefined, 'takes a body').to.equal('requestBody' in operation)
      for (const name of new URLSearchParams(call.query).keys())
        expect(
          operation.parameters.filter((one) => one.in === 'query').map((one) => one.name),
        ).to.include(name)
      const leaving = new AbortController()
      const response = await send(method, path, call, leaving.signal)
      const type = response.headers.get('content-type')?.split(';')[0] ?? ''
      expect([
        response.status,
        type,
        response.status === 200 ? '' : await response.text(),
      ]).to.deep.equal([200, type, ''])
      const content = operation.responses[200].content[type]
      if (content === undefined) throw new Error(`${type} is not documented`)
      const events = content['x-nestgate-events']
      if (events !== undefined) {
        const { name, data } = await firstEvent(response)
        validator(document, events[name]!).parse(data)
        leaving.abort()
      } else if (type === 'application/json')
        validator(document, content.schema).parse(await response.json())
      else
        expect(await response.text())
          .to.be.a('string')
          .and.not.equal('')
    })

    it(`says what refuses ${method.toUpperCase()} ${path}`, async () => {
      const as = wrongCaller(operation)
      const wrong = as === undefined ? { query: 'surprise=1', body: [] } : { as }
      const response = await send(method, path, {
        ...{
          path: {
            id: newRequestId(0),
            name: 'none',
            seq: '0',
            path: '0/000',
            item: 'x',
            sha256: 'x',
          },
        },
        ...(method === 'get' ? { ...wrong, body: undefined } : wrong),
        ...(as !== undefined && 'requestBody' in operation ? { body: {} } : {}),
      })
      // public ones that take nothing have nothing to refuse
      if (as === undefined && method === 'get') return
      expect(response.status).to.be.within(400, 499)
      const problem = document.components.schemas['Problem']!
      expect(response.headers.get('content-type')).to.match(/^application\/problem\+json/)
      validator(document, problem).parse(await response.json())
    })
  }

  for (const { id, method, path, caller } of OPERATIONS) {
    if (typeof caller !== 'object') continue
    for (const [role, token] of [
      ['reviewer', 'token-bob'],
      ['auditor', 'token-carol'],
    ] as const) {
      if (caller.includes(role)) continue
      it(`says that ${id} is not for a ${role}`, async () => {
        const place = {
          id: newRequestId(0),
          name: 'none',
          seq: '0',
          path: '000',
          item: 'x',
          sha256: 'x',
        }
        const body = method === 'get' || method === 'delete' ? {} : { body: {} }
        const response = await send(method, `/v1${path}`, { as: token, path: place, ...body })
        expect(await response.json()).to.include({ code: 'role_missing' })
      })
    }
  }

  it('is checked by a validator that refuses what is not documented', () => {
    const { Me: schema = {} } = document.components.schemas
    const me = { name: 'x', roles: [], groups: [] }
    expect(validator(document, schema).safeParse(me).success).to.equal(true)
    expect(validator(document, schema).safeParse({ ...me, more: 1 }).success).to.equal(false)
    expect(validator(document, schema).safeParse({ name: 'x' }).success).to.equal(false)
    const list = { $ref: '#/components/schemas/ClusterList' }
    expect(validator(document, list).safeParse({ items: [{ name: 'x' }] }).success).to.equal(false)
  })
})
