/**
 * Previews and the check before release, over real sockets against a stand-in for an API server: what it is asked,
 * as whom, and what comes of its faults.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import { MAX_ANSWER_BYTES } from '../../broker/approvals/as-caller.ts'
import type { CallerRequest } from '../../broker/approvals/as-caller.ts'
import { createPreviews, dryRunQuery } from '../../broker/approvals/preview.ts'
import type { Preview } from '../../broker/approvals/preview.ts'
import { MAX_PREVIEW_BYTES } from '../../broker/approvals/preview-text.ts'
import { createTargets } from '../../broker/approvals/target.ts'
import type { Sight } from '../../broker/approvals/target.ts'
import { callOf } from '../../broker/credentials/api-call.ts'
import { openConnection } from '../../broker/credentials/connection.ts'
import type { ClusterConnection } from '../../broker/credentials/connection.ts'
import { isRequestId } from '../../shared/request-id.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { connectionDeps } from '../support/connections.ts'
import { actAs, callerRequest } from '../support/caller-requests.ts'
import type { Line } from '../support/caller-requests.ts'
import { startUpstream } from '../support/upstream.ts'
import type { Upstream } from '../support/upstream.ts'

const N = '/api/v1/namespaces/agents'
const USER = 'system:serviceaccount:agents:worker'
const now = Date.now

type Reply = readonly [status: number, body: object | string]

describe('what a held request would do', () => {
  const targets = createTargets({ now })
  const previews = createPreviews({ now })
  let upstream: Upstream
  let connection: ClusterConnection

  before(async () => {
    upstream = await startUpstream()
  })
  after(() => upstream.close())

  beforeEach(async () => {
    upstream.seen.length = 0
    const { url: server, caFile, tokenFile } = upstream
    connection = await openConnection(
      {
        name: 'test',
        server,
        caFile,
        credential: { tokenFile },
        serviceAccountTokens: { verify: 'tokenReview' },
      },
      connectionDeps(now),
    )
  })
  afterEach(() => connection.close())

  /** Answers by method and path with query. */
  const serve = (replies: Record<string, Reply>): void => {
    upstream.onRequest = (request: IncomingMessage, response: ServerResponse) => {
      const [status, body] = replies[`${request.method} ${request.url}`] ?? [404, {}]
      response.writeHead(status, { 'content-type': 'application/json' })
      response.end(typeof body === 'string' ? body : JSON.stringify(body))
    }
  }
  const asCaller = (line: Line): CallerRequest => callerRequest(connection, actAs(USER), line)
  const sight = async (request: CallerRequest): Promise<Sight> => {
    const { seen } = await targets.snapshot(request)
    if (isRefusal(seen)) throw new Error(seen.detail)
    return seen
  }
  const preview = async (line: Line): Promise<Preview> => {
    const request = asCaller(line)
    return (await previews.preview(request, await sight(request))).preview
  }

  const configMap = (data: object, more: object = {}): object => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'c', namespace: 'agents', uid: 'u1', resourceVersion: '7', ...more },
    data,
  })
  const patch: Line = {
    method: 'PATCH',
    url: `${N}/configmaps/c?fieldManager=kubectl&dryRun=`,
    body: '{"data":{"a":"2"}}',
    contentType: 'application/merge-patch+json',
  }
  const dryPatch = `PATCH ${N}/configmaps/c?fieldManager=kubectl&dryRun=All`

  it('is asked of the API server as the caller, by the very request with dryRun=All', async () => {
    serve({
      [`GET ${N}/configmaps/c`]: [200, configMap({ a: '1' })],
      [dryPatch]: [200, configMap({ a: '2' }, { resourceVersion: '8' })],
    })
    const request = asCaller(patch)
    const first = await targets.snapshot(request)
    const { preview: made, asked } = await previews.preview(request, first.seen as Sight)
    expect(made).to.deep.equal({
      kind: 'diff',
      text: [
        '--- now',
        '+++ after the request',
        '@@ -1,6 +1,6 @@',
        ' apiVersion: v1',
        ' data:',
        '-  a: "1"',
        '+  a: "2"',
        ' kind: ConfigMap',
        ' metadata:',
        '   name: c',
        '',
      ].join('\n'),
    })
    expect(upstream.seen.map(({ method, url }) => `${method} ${url}`)).to.deep.equal([
      `GET ${N}/configmaps/c`,
      dryPatch,
    ])
    expect(upstream.seen[1]?.body).to.equal(patch.body)
    expect(upstream.seen[1]?.headers['content-type']).to.equal(patch.contentType)
    const ids = [...first.asked, ...asked].map(({ requestId }) => requestId)
    for (const [index, { headers }] of upstream.seen.entries()) {
      expect(headers['impersonate-user']).to.equal(USER)
      expect(headers['audit-id']).to.equal(ids[index])
      expect(headers.accept).to.equal('application/json')
    }
    expect(new Set(ids).size).to.equal(2)
    expect(ids.every((id) => isRequestId(id))).to.equal(true)
    expect(asked[0]).to.deep.include({ purpose: 'preview', method: 'PATCH', status: 200 })
  })

  it('never goes out without an identity', async () => {
    serve({})
    const made = (requestId: string, { method, path }: { method: string; path: string }) =>
      connection.credential.make({
        requestId,
        actor: { kind: 'subject', name: '' },
        ...{ grantGroups: [], process: undefined, approvers: [], call: callOf(method, path) },
      })
    const nobody = callerRequest(connection, made, patch)
    let fault: unknown
    await targets.snapshot(nobody).catch((error: unknown) => (fault = error))
    expect(fault).to.have.property('code', 'identity_empty')
    expect(upstream.seen).to.deep.equal([])
  })

  it('shows what the API server would refuse, without the values of Secrets', async () => {
    const message = 'Secret "s" is invalid: data[a]: Invalid value: "c2VjcmV0"'
    const details = { causes: [{ reason: 'FieldValueInvalid', field: 'data[a]', message }] }
    const status = { kind: 'Status', reason: 'Invalid', code: 422, message, details }
    const url = `${N}/secrets/s`
    serve({
      [`GET ${url}`]: [200, { kind: 'Secret', metadata: { uid: 'u' }, data: { a: 'b2xk' } }],
      [`PUT ${url}?dryRun=All`]: [422, status],
    })
    const body = { kind: 'Secret', data: { a: 'c2VjcmV0' } }
    const made = await preview({ method: 'PUT', url, body })
    expect(made).to.deep.equal({
      kind: 'sent',
      text: 'data:\n  a: "***"\nkind: Secret\n',
      note: 'the API server would refuse it: 422 Invalid: data[a]',
    })
  })

  it('quotes the API server where nothing secret is at hand, and hides variables in what it says', async () => {
    const env = [{ name: 'API_TOKEN', value: 'tok-123' }]
    const message =
      'admission webhook denied: tok-123 is weak, error found in #10 byte of ...|"tok-123"|...'
    const url = `${N}/pods`
    serve({ [`POST ${url}?dryRun=All`]: [403, { reason: 'Forbidden', message }] })
    const body = { metadata: { name: 'p' }, spec: { containers: [{ name: 'c', env }] } }
    const { note, text } = await preview({ method: 'POST', url, body })
    expect(note).to.equal(
      'the API server would refuse it: 403 Forbidden: admission webhook denied: *** is weak',
    )
    expect(text).to.include('API_TOKEN').and.not.include('tok-123')
  })

  it('shows an applied manifest as it was sent, when applying it would be a conflict', async () => {
    const url = `${N}/secrets/s?fieldManager=ci`
    serve({ [`PATCH ${url}&dryRun=All`]: [409, { reason: 'Conflict', message: 'c2VjcmV0' }] })
    const line = { method: 'PATCH', url, contentType: 'application/apply-patch+yaml' }
    const body = 'kind: Secret\ndata: {a: c2VjcmV0}\nn: 9007199254740993\n'
    expect(await preview({ ...line, body })).to.deep.equal({
      kind: 'sent',
      text: 'data:\n  a: "***"\nkind: Secret\nn: 9007199254740993\n',
      note: 'the API server would refuse it: 409 Conflict',
    })
    const aliased = 'data: &x {a: c2VjcmV0}\nmore: *x\n'
    expect((await preview({ ...line, body: aliased })).kind).to.equal('none')
  })

  it('does no dry run where that might do the thing, or hand out a token', async () => {
    serve({})
    const unknown = '/apis/metrics.example.com/v1/namespaces/agents/things/t'
    const body = '{"kind":"Thing","n":12345678901234567890,"f":1.10}'
    const made = await preview({ method: 'PUT', url: unknown, body })
    expect(made.kind).to.equal('sent')
    expect(made.text).to.equal('f: 1.10\nkind: Thing\nn: 12345678901234567890\n')
    const tokens = await preview({ method: 'POST', url: `${N}/serviceaccounts/s/token`, body: {} })
    expect(tokens.kind).to.equal('none')
    await preview({ method: 'POST', url: `${N}/pods/p/binding`, body: {} })
    const evicted = await preview({ method: 'POST', url: `${N}/pods/p/eviction`, body: {} })
    expect(evicted.note).to.equal('there is no object of this name')
    await preview({ method: 'DELETE', url: `${N}/pods/p` })
    await preview({ method: 'PUT', url: `${N}/pods/p?dryRun=All`, body: {} })
    expect(
      upstream.seen.map(({ method }) => method).filter((each) => each !== 'GET'),
    ).to.deep.equal([])
  })

  it('shows replicas that become none', async () => {
    const url = '/apis/apps/v1/namespaces/agents/deployments/d'
    const scale = (spec: object): object => ({ kind: 'Scale', metadata: { name: 'd' }, spec })
    serve({
      [`GET ${url}`]: [200, { kind: 'Deployment', metadata: { uid: 'u' } }],
      [`GET ${url}/scale`]: [200, scale({ replicas: 3 })],
      [`PATCH ${url}/scale?dryRun=All`]: [200, scale({})],
    })
    const { text } = await preview({ method: 'PATCH', url: `${url}/scale`, body: '{}' })
    expect(text).to.include('-  replicas: 3').and.include('+  replicas: 0')
  })

  it('shows the object that a deletion takes, and the names that a deletion of many takes', async () => {
    serve({
      [`GET ${N}/secrets/s`]: [200, { kind: 'Secret', metadata: { name: 's' }, data: { a: 'YQ' } }],
      [`GET ${N}/pods?labelSelector=app%3Dx&limit=200`]: [
        200,
        { items: [{ metadata: { namespace: 'agents', name: 'p1' } }], metadata: { continue: 'x' } },
      ],
    })
    expect(await preview({ method: 'DELETE', url: `${N}/secrets/s` })).to.deep.equal({
      kind: 'object',
      text: 'data:\n  a: "***"\nkind: Secret\nmetadata:\n  name: s\n',
    })
    const many = `${N}/pods?labelSelector=app%3Dx&gracePeriodSeconds=0`
    expect(await preview({ method: 'DELETE', url: many })).to.deep.equal({
      kind: 'list',
      text: 'agents/p1',
      note: 'more than 1 objects would go, as it is now',
    })
  })

  it('shows what a session runs, word by word, and in which image', async () => {
    const containers = [
      { name: 'web', image: 'nginx:1' },
      { name: 'side', image: 'envoy:2' },
    ]
    serve({
      [`GET ${N}/pods/p`]: [200, { kind: 'Pod', metadata: { uid: 'u' }, spec: { containers } }],
    })
    const { kind, text } = await preview({
      method: 'GET',
      url: `${N}/pods/p/exec`,
      parameters: { command: ['sh', '-c', 'rm -rf "/x y"\n\u009b'], container: 'side', tty: true },
    })
    expect(kind).to.equal('session')
    expect(text.split('\n')).to.deep.equal([
      'argv:',
      '  "sh"',
      '  "-c"',
      '  "rm -rf \\"/x y\\"\\n\\u009b"',
      'container: "side"',
      'image: "envoy:2"',
      'tty: true',
      'stdin: false',
    ])
  })

  it('does not take what the caller cannot read for something new', async () => {
    serve({
      [`GET ${N}/configmaps/c`]: [403, {}],
      [dryPatch]: [200, configMap({ a: '2' })],
    })
    const made = await preview(patch)
    expect(made.kind).to.equal('object')
    expect(made.note).to.match(/may not read the object as it is/)
  })

  it('stays within its size, and keeps control characters out', async () => {
    const lines = Array.from({ length: 5000 }, (_, index) => `line ${index} \u202e`).join('\n')
    const made = configMap({ a: 'x'.repeat(100_000), b: '\u001b[2J', c: lines })
    serve({ [`POST ${N}/configmaps?dryRun=All`]: [201, made] })
    const { kind, text } = await preview({ method: 'POST', url: `${N}/configmaps`, body: made })
    expect(kind).to.equal('diff')
    expect(text)
      .to.match(/line cut/)
      .and.include('\n+    line 7 \\u202e\n')
    expect(Buffer.byteLength(text)).to.be.lessThan(MAX_PREVIEW_BYTES + 1)
    expect(text).to.match(/cut here/)
    // eslint-disable-next-line no-control-regex -- none may be there
    expect(text).not.to.match(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/)
  })

  it('names the places that change where there is too much to compare', async () => {
    const many = (value: string): object =>
      Object.fromEntries(Array.from({ length: 4000 }, (_, index) => [`k${index}`, value]))
    serve({
      [`GET ${N}/configmaps/c`]: [200, configMap(many('1'))],
      [dryPatch]: [200, configMap({ ...many('1'), k7: '2', new: '3' })],
    })
    const { kind, text, note } = await preview(patch)
    expect(kind).to.equal('diff')
    expect(text.split('\n')).to.deep.equal(['/data/k7 changes', '/data/new is added'])
    expect(note).to.match(/places that change/)
  })

  it('puts dryRun=All in the place of any other', () => {
    expect(dryRunQuery('')).to.equal('dryRun=All')
    expect(dryRunQuery('a=b&dryRun=&%64ryRun=x&dryRunner=1')).to.equal('a=b&dryRunner=1&dryRun=All')
  })

  describe('before it is released', () => {
    const request = (): CallerRequest => asCaller({ method: 'DELETE', url: `${N}/configmaps/c` })
    const now7 = configMap({ a: '1' })

    it('is the same, and is asked for once', async () => {
      serve({ [`GET ${N}/configmaps/c`]: [200, now7] })
      const { target } = await sight(request())
      upstream.seen.length = 0
      const { refusal, asked } = await targets.check(request(), target)
      expect(refusal).to.equal(undefined)
      expect(asked.map(({ purpose }) => purpose)).to.deep.equal(['recheck'])
      expect(upstream.seen).to.have.length(1)
    })

    it('is refused with what has changed', async () => {
      serve({ [`GET ${N}/configmaps/c`]: [200, now7] })
      const { target } = await sight(request())
      serve({ [`GET ${N}/configmaps/c`]: [200, configMap({ a: '2' }, { resourceVersion: '9' })] })
      expect((await targets.check(request(), target)).refusal).to.deep.equal({
        refused: 'approval_target_changed',
        detail: 'it has changed since, resourceVersion 7 → 9',
      })
      serve({})
      expect((await targets.check(request(), target)).refusal).to.deep.equal({
        refused: 'approval_target_changed',
        detail: 'it was deleted',
      })
    })

    it('is refused when it cannot be looked at', async () => {
      serve({ [`GET ${N}/configmaps/c`]: [200, now7] })
      const { target } = await sight(request())
      const replies: readonly Reply[] = [
        [503, {}],
        [429, {}],
        [302, {}],
        [200, 'no JSON'],
        [200, configMap({ a: 'x'.repeat(MAX_ANSWER_BYTES) })],
        [200, '['.repeat(5000) + ']'.repeat(5000)],
      ]
      for (const reply of replies) {
        serve({ [`GET ${N}/configmaps/c`]: reply })
        const { refusal } = await targets.check(request(), target)
        expect(refusal, String(reply[0])).to.deep.include({ refused: 'target_unreadable' })
        expect((await targets.snapshot(request())).seen).to.deep.include({
          refused: 'target_unreadable',
        })
      }
      upstream.onRequest = (incoming) => incoming.socket.destroy()
      const { refusal, asked } = await targets.check(request(), target)
      expect(refusal).to.deep.include({ refused: 'target_unreadable' })
      expect(asked[0]?.status).to.equal(0)
    })

    it('is refused when the API server is silent', async () => {
      upstream.onRequest = () => undefined
      const { refusal } = await targets.check(request(), { absent: true })
      expect(refusal).to.deep.equal({ refused: 'target_unreadable', detail: 'no answer in time' })
    }).timeout(20_000)

    it('asks nothing where no object was seen', async () => {
      const list = asCaller({ method: 'DELETE', url: `${N}/configmaps` })
      expect((await targets.check(list, undefined)).refusal).to.equal(undefined)
      expect(upstream.seen).to.deep.equal([])
    })
  })
})
