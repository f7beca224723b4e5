/** What clusters serve, learnt from a real HTTPS server: once, lazily, and of one group version at a time. */
import type { ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { clusterJson, MAX_ANSWER_BYTES } from '../../broker/credentials/cluster-json.ts'
import { openConnection } from '../../broker/credentials/connection.ts'
import type { ClusterConnection } from '../../broker/credentials/connection.ts'
import {
  MAX_ASKING,
  createKinds,
  FRESH_MS,
  MAX_GROUP_VERSIONS,
  STALE_MS,
  UNKNOWN_AGAIN_MS,
} from '../../broker/discovery/kinds.ts'
import type { Kinds } from '../../broker/discovery/kinds.ts'
import { parseTarget } from '../../shared/kubernetes/path.ts'
import { readRequestInfo } from '../../shared/kubernetes/request-info.ts'
import type { RequestInfo } from '../../shared/kubernetes/request-info.ts'
import { createLog } from '../../shared/log.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { connectionDeps } from '../support/connections.ts'
import { startUpstream } from '../support/upstream.ts'
import type { Upstream } from '../support/upstream.ts'

const list = (resources: Readonly<Record<string, boolean>>): object => ({
  kind: 'APIResourceList',
  resources: Object.entries(resources).map(([name, namespaced]) => ({ name, namespaced })),
})
const CORE = list({
  ...{ pods: true, 'pods/exec': true, 'pods/log': true, 'pods/proxy': true },
  ...{ namespaces: false, 'namespaces/finalize': false, 'namespaces/status': false },
  ...{ nodes: false, 'nodes/proxy': false },
})

function info(method: string, url: string): RequestInfo {
  const target = parseTarget(url)
  if (isRefusal(target)) throw new Error(url)
  const read = readRequestInfo(method, target)
  if (isRefusal(read)) throw new Error(url)
  return read
}

interface Answer {
  readonly status?: number
  readonly document?: object
  readonly act?: (response: ServerResponse) => void
}

describe('what clusters serve', () => {
  const log = createLog('test', 'silent')
  let upstream: Upstream
  let connection: ClusterConnection
  let kinds: Kinds
  let time: number
  /** 404 for all else. */
  let answers: Map<string, Answer>

  beforeEach(async () => {
    upstream = await startUpstream()
    upstream.serves = {}
    upstream.onRequest = ({ url = '' }, response) => {
      const { status = 200, document = {}, act } = answers.get(url) ?? { status: 404 }
      if (act === undefined) response.writeHead(status).end(JSON.stringify(document))
      else act(response)
    }
    answers = new Map<string, Answer>([
      ['/api/v1', { document: CORE }],
      ['/apis/apps/v1', { document: list({ deployments: true, 'deployments/scale': true }) }],
    ])
    const { url, caFile, tokenFile } = upstream
    time = 1_000_000
    connection = await openConnection(
      {
        ...{ name: 'main', server: url, caFile, credential: { tokenFile } },
        serviceAccountTokens: { verify: 'tokenReview' },
      },
      connectionDeps(() => time),
    )
    kinds = createKinds({ log, now: () => time })
  })
  afterEach(async () => {
    await connection.close()
    await upstream.close()
  })

  const asked = (): readonly string[] => upstream.seen.map(({ url }) => url)
  const refused = async (method: string, url: string): Promise<string | undefined> =>
    (await kinds.check(connection, info(method, url)))?.refused

  it('passes what is served, and asks once for each group version', async () => {
    for (const [method, url] of [
      ['GET', '/api/v1/pods'],
      ['GET', '/api/v1/pods?watch=1'],
      ['GET', '/api/v1/watch/namespaces/n/pods/p'],
      ['GET', '/api/v1/proxy/namespaces/n/pods/p/metrics'],
      ['GET', '/api/v1/namespaces/n/pods/p'],
      ['POST', '/api/v1/namespaces/n/pods/p/exec'],
      ['GET', '/api/v1/namespaces'],
      ['DELETE', '/api/v1/namespaces/n'],
      ['PUT', '/api/v1/namespaces/n/finalize'],
      ['PUT', '/api/v1/namespaces/n/status'],
      ['GET', '/api/v1/nodes/n/proxy/metrics'],
      ['PUT', '/apis/apps/v1/namespaces/n/deployments/d/scale'],
      ['GET', '/version'],
      ['GET', '/api'],
      ['GET', '/apis/none.example/v1'],
    ] as const)
      expect(await refused(method, url), url).to.equal(undefined)
    expect(asked()).to.deep.equal(['/api/v1', '/apis/apps/v1'])
  })

  it('refuses what is not served, or not in this scope', async () => {
    for (const [method, url] of [
      ['GET', '/api/v1/bogus'],
      ['GET', '/api/v2/pods'],
      ['GET', '/apis/none.example/v1/things'],
      ['GET', '/apis/apps/v2/deployments'],
      ['GET', '/api/v1/namespaces/n/pods/p/made-up'],
      ['GET', '/api/v1/namespaces/n/nodes'],
      ['GET', '/api/v1/namespaces/n/nodes/x'],
      ['GET', '/api/v1/pods/p'],
      ['DELETE', '/api/v1/pods/p'],
      ['GET', '/api/v1/constructor'],
      ['GET', '/api/v1/namespaces/n/__proto__'],
    ] as const)
      expect(await refused(method, url), url).to.equal('kind_unknown')
  })

  it('answers at once where it knows, without a promise', async () => {
    await refused('GET', '/api/v1/pods')
    expect(kinds.check(connection, info('GET', '/api/v1/pods'))).to.equal(undefined)
  })

  it('asks once for many that wait', async () => {
    const all = Array.from({ length: 50 }, () => refused('GET', '/api/v1/pods'))
    expect(new Set(await Promise.all(all))).to.deep.equal(new Set([undefined]))
    expect(asked()).to.deep.equal(['/api/v1'])
  })

  it('finds a kind that was made just now, and asks for it at most once in 5 s', async () => {
    expect(await refused('GET', '/apis/new.example/v1/things')).to.equal('kind_unknown')
    answers.set('/apis/new.example/v1', { document: list({ things: false }) })
    time += UNKNOWN_AGAIN_MS - 1
    expect(await refused('GET', '/apis/new.example/v1/things')).to.equal('kind_unknown')
    expect(asked()).to.have.length(1)
    time += 1
    expect(await refused('GET', '/apis/new.example/v1/things')).to.equal(undefined)
  })

  it('asks again in the background, and uses what it knew for an hour at most', async () => {
    await refused('GET', '/api/v1/pods')
    answers.set('/api/v1', { status: 503 })
    time += FRESH_MS
    expect(kinds.check(connection, info('GET', '/api/v1/pods'))).to.equal(undefined)
    const end = performance.now() + 5_000
    while (asked().length < 2 && performance.now() < end) await sleep(5)
    expect(asked()).to.have.length(2)
    time += STALE_MS - FRESH_MS - 1
    expect(await refused('GET', '/api/v1/pods')).to.equal(undefined)
    time += UNKNOWN_AGAIN_MS
    expect(await refused('GET', '/api/v1/pods')).to.equal('discovery_unavailable')
  })

  it('lets a group that does not answer disturb no other', async () => {
    answers.set('/apis/metrics.k8s.io/v1', { status: 503 })
    answers.set('/apis/odd.example/v1', { document: { kind: 'Status' } })
    answers.set('/apis/cut.example/v1', { act: (response) => response.destroy() })
    for (const group of ['metrics.k8s.io', 'odd.example', 'cut.example'])
      expect(await refused('GET', `/apis/${group}/v1/nodes`)).to.equal('discovery_unavailable')
    expect(await refused('GET', '/apis/apps/v1/deployments')).to.equal(undefined)
    expect(await refused('GET', '/api/v1/pods')).to.equal(undefined)
  })

  it('takes no answer without an end', async () => {
    let sent = 0
    const chunk = Buffer.alloc(1024 * 1024, ' ')
    const act = (response: ServerResponse): void => {
      sent += chunk.length
      if (!response.destroyed)
        response.write(chunk, () => {
          act(response)
        })
    }
    answers.set('/api/v1', { act })
    const answer = await clusterJson(connection, 'GET', '/api/v1')
    expect(answer).to.deep.equal({ problem: `longer than ${MAX_ANSWER_BYTES} bytes` })
    expect(sent).to.be.below(4 * MAX_ANSWER_BYTES)
  })

  it('keeps a bounded number of group versions, and those that there are whatever names are made up', async () => {
    await refused('GET', '/apis/apps/v1/deployments')
    await refused('GET', '/api/v1/pods')
    const first = '/apis/g0.example/v1'
    for (let count = 0; count < MAX_GROUP_VERSIONS + 10; count += 1)
      await refused('GET', `/apis/g${count}.example/v1/things`)
    expect(kinds.check(connection, info('GET', '/api/v1/pods'))).to.equal(undefined)
    expect(kinds.check(connection, info('GET', '/apis/apps/v1/deployments'))).to.equal(undefined)
    const before = asked().length
    await refused('GET', `${first}/things`)
    expect(asked().slice(before), 'forgotten, and so asked for again').to.deep.equal([first])
  })

  it('asks a cluster a bounded number of questions at once', async () => {
    const open: ServerResponse[] = []
    const names = Array.from({ length: MAX_ASKING + 5 }, (_, count) => `/apis/h${count}.example/v1`)
    for (const name of names) answers.set(name, { act: (response) => open.push(response) })
    const checks = names.map((name) =>
      Promise.resolve(kinds.check(connection, info('GET', `${name}/things`))),
    )
    const over = await Promise.all(checks.slice(MAX_ASKING))
    for (const refusal of over) expect(refusal).to.include({ refused: 'discovery_unavailable' })
    while (open.length < MAX_ASKING) await sleep(5)
    for (const response of open) response.writeHead(404).end()
    const asking = await Promise.all(checks.slice(0, MAX_ASKING))
    for (const refusal of asking) expect(refusal).to.include({ refused: 'kind_unknown' })
  })

  it('tells what it knows of a cluster, until that is forgotten', async () => {
    await refused('GET', '/apis/apps/v1/deployments')
    const [first] = kinds.served('main')
    expect(first).to.include({ apiGroup: 'apps', resource: 'deployments', namespaced: true })
    kinds.forget('main')
    expect(kinds.served('main')).to.deep.equal([])
    await refused('GET', '/apis/apps/v1/deployments')
    expect(asked()).to.have.length(2)
  })
})
