import { expect } from 'chai'
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createServer as createTlsServer } from 'node:https'
import { createServer } from 'node:http'
import type { RequestListener } from 'node:http'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'mocha'
import { writeCertificates } from '../../cli/certificates.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { facts, intent, outcome, TAG } from '../support/entries.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'

const MAIN = new URL('../../cli/main.ts', import.meta.url).pathname

interface Run {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

async function run(args: readonly string[], env: Record<string, string>): Promise<Run> {
  const child = spawn(process.execPath, [MAIN, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, out, err }
}

describe('nestgate', () => {
  let api: ApiServer
  before(async () => {
    api = await startApi()
  })
  after(() => api.close())

  const as = (person: string, ...args: string[]): Promise<Run> =>
    run(args, { NESTGATE_BROKER_URL: api.url, NESTGATE_TOKEN: `token-${person}` })
  const hold = async (change: Parameters<typeof facts>[0] = {}): Promise<string> => {
    const held = await api.approvals.ask(facts(change), [])
    if (isRefusal(held)) throw new Error(held.refused)
    return held.approval.id
  }

  it('lists what waits, and says so when nothing does', async () => {
    expect(await as('alice', 'approvals', 'list')).to.deep.equal({
      code: 0,
      out: 'No held requests.\n',
      err: '',
    })
    const id = await hold()
    const { code, out } = await as('alice', 'approvals', 'list')
    expect(code).to.equal(0)
    const [head, line] = out.split('\n')
    expect(head).to.match(/^ID +STATE +AGE +AGENT +SUBJECT +CLUSTER +WHAT +RULES$/)
    expect(line).to.match(
      new RegExp(
        `^${id} +PENDING +\\ds +/usr/bin/kubectl +.*delete deployments.apps shop/old +deletions$`,
      ),
    )
    const json = JSON.parse((await as('alice', 'approvals', 'list', '--output', 'json')).out) as {
      items: { id: string }[]
    }
    expect(json.items.map((item) => item.id)).to.deep.equal([id])
  })

  it('shows who asks for what, verified facts apart from claims', async () => {
    const id = await hold({ query: 'propagationPolicy=Orphan', bodyBytes: 12 })
    const { code, out } = await as('carol', 'approvals', 'show', id)
    expect(code).to.equal(0)
    const shown = out.replaceAll(/ +/g, ' ')
    for (const line of [
      `Request: ${id}`,
      'Subject: system:serviceaccount:shop:agents',
      'Process: /usr/bin/kubectl (pid 42) in container ccccccccccccc',
      'started by: /bin/sh (pid 7) in container ccccccccccccc',
      'Says it runs: kubectl (+3 arguments)',
      'DELETE /apis/apps/v1/namespaces/shop/deployments/old?propagationPolicy=Orphan',
      `Body: 12 bytes, sha256 ${'0'.repeat(64)}`,
      'Held by: deletions',
      'Expires: ',
    ])
      expect(shown).to.contain(line)
  })

  it('approves and denies with a reason, once', async () => {
    const [one, two] = [await hold(), await hold()]
    expect(await as('alice', 'approvals', 'approve', one, '--reason', 'looks right')).to.deep.equal(
      {
        ...{ code: 0, err: '' },
        out: `${one}  APPROVED by alice: delete deployments.apps shop/old\n`,
      },
    )
    expect(await as('alice', 'approvals', 'deny', two, '--reason', 'no')).to.include({ code: 0 })
    expect(await api.approvals.get(two)).to.include({
      state: 'DENIED',
      reviewer: 'alice',
      reason: 'no',
    })
    const again = await as('alice', 'approvals', 'deny', one, '--reason', 'no')
    expect(again).to.include({ code: 1, out: '' })
    expect(again.err).to.contain('approval_not_pending')
  })

  it('shows what policy wants, what would change, and what else the agent did', async () => {
    const agent = `agent-${newRequestId(0)}`
    const id = await hold({
      ...{ agent, ancestors: ['planner', 'shell'], owners: ['group:bots'] },
      terms: { quorums: [{ group: 'sre', count: 2 }] },
      target: { uid: 'uid-1', resourceVersion: '77', contentSha256: 'a' },
      preview: { kind: 'diff', text: '-replicas: 3\n+\treplicas: 0\u001b[2J', note: 'masked' },
    })
    await api.approvals.decide({
      ...{ id, reviewer: 'bob', groups: ['sre'], approve: true, reason: 'fine' },
    })
    await api.store.append([intent({ agent })])
    const { code, out } = await as('carol', 'approvals', 'show', id)
    expect(code).to.equal(0)
    const shown = out.replaceAll(/ +/g, ' ')
    for (const line of [
      'Because: rule "deletions" holds delete deployments',
      'Above it: planner < shell',
      'Owners: group:bots',
      'Needs: 2 of sre',
      'Missing: 1 of sre',
      'Approved: by bob at ',
      'Target: uid uid-1, version 77',
      'diff: masked\n -replicas: 3\n + replicas: 0\\x1b[2J\n',
      'allow get pods shop/web-0',
    ])
      expect(shown).to.contain(line)
  })

  it('says what is still missing after an approval, revokes, and closes reviews', async () => {
    const id = await hold({
      terms: {
        quorums: [
          { group: 'sre', count: 1 },
          { group: 'security', count: 1 },
        ],
      },
    })
    const what = 'delete deployments.apps shop/old\n'
    const half = await as('bob', 'approvals', 'approve', id, '--reason', 'ok')
    expect(half.out).to.equal(`${id}  PENDING, still needs 1 of security: ${what}`)
    const whole = await as('eve', 'approvals', 'approve', id, '--reason', 'ok')
    expect(whole.out).to.equal(`${id}  APPROVED by eve: ${what}`)
    const revoked = await as('alice', 'approvals', 'revoke', id, '--reason', 'no')
    expect(revoked.out).to.equal(`${id}  REVOKED by alice: ${what}`)

    const { approval } = await api.approvals.open(facts(), [])
    await api.approvals.finish(approval.id, 'SUCCEEDED')
    const open = await as('alice', 'approvals', 'list', '--review', 'open')
    expect(open.out).to.contain(approval.id)
    const review = ['approvals', 'review', approval.id, '--reason', 'fire', '--verdict']
    expect(await as('alice', ...review, 'perhaps')).to.include({ code: 2 })
    const closed = await as('alice', ...review, 'justified')
    expect(closed.out).to.equal(`${approval.id}  justified, says alice: ${what}`)
  })

  it('watches what waits and each change, one line each, until the broker ends it', async () => {
    const server = await startApi()
    const waiting = facts()
    await server.approvals.ask(waiting, [])
    const env = { NESTGATE_BROKER_URL: server.url, NESTGATE_TOKEN: 'token-alice' }
    for (const format of ['table', 'json']) {
      const child = spawn(process.execPath, [MAIN, '--output', format, 'approvals', 'watch'], {
        env,
        stdio: ['ignore', 'pipe', 'ignore'],
      })
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
      const line = async (): Promise<string> => String((await lines.next()).value)
      expect(await line()).to.contain(waiting.id)
      const evil = facts({ name: '\u001b[2J\nx' })
      await server.approvals.ask(evil, [])
      const added = await line()
      expect(added)
        .to.contain(evil.id)
        .and.not.match(/\p{Cc}/u)
      await server.approvals.leave(evil.id, { podUid: 'pod-1' })
      const left = await line()
      if (format === 'table')
        expect(left).to.match(new RegExp(`^${evil.id}  PENDING > CANCELLED  `))
      else expect(JSON.parse(left)).to.have.nested.property('approval.state', 'CANCELLED')
      if (format === 'json') server.approvals.close()
      else child.kill()
      const [code] = (await once(child, 'close')) as [number | null]
      expect(code).to.equal(format === 'json' ? 1 : null)
    }
    await server.close()
  })

  it('cannot be made to act on the terminal by what an agent chose', async () => {
    const evil = '\u001b[2Jx\u202ey\nAPPROVED'
    const id = await hold({ name: evil, agent: evil, tag: { ...TAG, declared: { command: evil } } })
    for (const args of [
      ['approvals', 'list'],
      ['approvals', 'show', id],
      ['--output', 'json', 'approvals', 'show', id],
    ]) {
      const { code, out } = await as('alice', ...args)
      expect(code).to.equal(0)
      expect(out).to.not.match(/[^\n\P{Cc}]|\p{Cf}/u)
      expect(out.split('\n')).to.not.include('APPROVED')
    }
  })

  it('reads the audit with filters, over pages', async () => {
    const { requestId } = intent()
    const denial = { effect: 'deny', reason: 'policy_denied' } as const
    await api.store.append([
      intent({ requestId, agent: 'scanner', decision: denial }),
      outcome(requestId, 403),
    ])
    const { code, out } = await as('carol', 'audit', '--request', requestId)
    expect(code).to.equal(0)
    const [, second, first] = out.split('\n')
    expect(first).to.match(
      new RegExp(`^\\S+Z +intent +scanner +get pods shop/web-0 +deny policy_denied +${requestId}$`),
    )
    expect(second).to.match(new RegExp(`^\\S+Z +outcome +403 +${requestId}$`))

    const agent = 'many'
    await api.store.append(Array.from({ length: 1100 }, () => intent({ agent })))
    const many = await as('carol', '--output', 'json', 'audit', '--agent', agent, '--limit', '1050')
    const { items } = JSON.parse(many.out) as { items: { seq: number }[] }
    expect(new Set(items.map(({ seq }) => seq)).size).to.equal(1050)
    expect((await as('carol', 'audit', '--agent', 'nobody')).out).to.equal('No entries.\n')
  })

  it('follows the ledger, a line for each entry, until it is interrupted', async () => {
    const child = spawn(
      process.execPath,
      [MAIN, 'audit', '--follow', '--agent', 'followed\u202e', '--output', 'json'],
      {
        env: { NESTGATE_BROKER_URL: api.url, NESTGATE_TOKEN: 'token-carol' },
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    )
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    for (;;) {
      const [read] = await api.store.events({ event: 'audit_read' }, 1)
      if (JSON.stringify(read?.entry).includes('followed')) break
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    const agent = 'followed\u202e'
    await api.store.append([intent({ agent }), intent(), intent({ agent })])
    const seen = [await lines.next(), await lines.next()].map(({ value }) => {
      expect(value).to.not.contain('\u202e')
      return JSON.parse(value!) as { seq: number; entry: { agent: string } }
    })
    expect(seen.map(({ entry }) => entry.agent)).to.deep.equal([agent, agent])
    expect((seen[1]?.seq ?? 0) - (seen[0]?.seq ?? 0)).to.equal(2)
    child.kill('SIGINT')
    await once(child, 'close')
  })

  it('follows from an entry on, and says when the broker ends it', async () => {
    const other = await startApi()
    const seq = await other.store.append([intent(), intent({ agent: 'second' })])
    const child = run(['audit', '--follow', '--kind', 'intent', '--after', String(seq)], {
      ...{ NESTGATE_BROKER_URL: other.url, NESTGATE_TOKEN: 'token-carol' },
    })
    while ((await other.store.events({ event: 'audit_read' }, 1)).length === 0)
      await new Promise((resolve) => setTimeout(resolve, 50))
    await new Promise((resolve) => setTimeout(resolve, 300))
    other.approvals.close()
    const { code, out, err } = await child
    await other.close()
    expect(code).to.equal(1)
    expect(out).to.match(/^\S+ {2}intent {2}second {2}get pods shop\/web-0 {2}allow {2}\S+\n$/)
    expect(err).to.contain('the broker ended the watch')
  })

  const failures: readonly [string, string, string[], number, string][] = [
    ['a role is missing', 'alice', ['audit'], 1, 'role_missing'],
    ['the token is wrong', 'nobody', ['approvals', 'list'], 1, 'credentials_invalid'],
    [
      'the request is unknown',
      'alice',
      ['approvals', 'show', newRequestId(0)],
      1,
      'request_unknown',
    ],
    ['the broker refuses a filter', 'carol', ['audit', '--status', 'abc'], 1, 'query_invalid'],
    ['the id is none', 'alice', ['approvals', 'show', '../audit/events'], 2, 'id is not one'],
    [
      'a number to follow from is none',
      'carol',
      ['audit', '--follow', '--after', 'x'],
      2,
      '--after',
    ],
    ['a number is given and nothing followed', 'carol', ['audit', '--after', '1'], 2, '--follow'],
    ['it is to follow up to a limit', 'carol', ['audit', '--follow', '--limit', '5'], 2, '--limit'],
    ['the limit is none', 'carol', ['audit', '--limit', '0'], 2, '--limit'],
    ['there is no reason', 'alice', ['approvals', 'approve', newRequestId(0)], 2, '--reason'],
    ['the command is unknown', 'alice', ['aprovals'], 2, 'unknown command'],
    ['the option is unknown', 'alice', ['audit', '--user', 'x'], 2, 'unknown option'],
    ['the format is unknown', 'alice', ['--output', 'xml', 'audit'], 2, 'xml'],
    [
      'the broker is plain HTTP far away',
      'alice',
      ['--broker', 'http://broker.example', 'audit'],
      2,
      'https',
    ],
    [
      'the broker is not there',
      'alice',
      ['--broker', 'http://127.0.0.1:1', 'audit'],
      1,
      'ECONNREFUSED',
    ],
  ]
  for (const [when, person, args, code, message] of failures) {
    it(`exits ${code} and says why when ${when}`, async () => {
      const result = await as(person, ...args)
      expect(result.err).to.contain(message)
      expect([result.code, result.out]).to.deep.equal([code, ''])
      expect(result.err).to.not.contain(`token-${person}`)
    })
  }

  it('prints help and exits 0 when asked to', async () => {
    const { code, out } = await run(['--help'], {})
    expect(code).to.equal(0)
    for (const name of ['approvals', 'audit', 'token', 'certificates']) expect(out).to.contain(name)
  })

  it('makes tokens whose hash is the one for the configuration, each another', async () => {
    const made = await Promise.all([1, 2].map(() => run(['--output', 'json', 'token', 'new'], {})))
    const tokens = made.map(({ out }) => JSON.parse(out) as { token: string; tokenSha256: string })
    for (const { token, tokenSha256 } of tokens) {
      expect(token).to.match(/^nestgate_[A-Za-z0-9_-]{43}$/)
      expect(createHash('sha256').update(token).digest('hex')).to.equal(tokenSha256)
    }
    expect(tokens[0]?.token).to.not.equal(tokens[1]?.token)
  })
})

describe('nestgate with another server than the broker', () => {
  /** Starts a server, runs, stops. */
  const against = async (listener: RequestListener): Promise<Run> => {
    const server = createServer(listener).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const result = await run(['approvals', 'list'], {
      NESTGATE_BROKER_URL: `http://127.0.0.1:${port}`,
      NESTGATE_TOKEN: 'my-token',
    })
    server.close()
    server.closeAllConnections()
    return result
  }
  const answers: readonly [string, RequestListener][] = [
    ['HTML', (_request, response) => response.end('<html>')],
    ['an error page', (_request, response) => response.writeHead(502).end('Bad gateway')],
    ['JSON of another shape', (_request, response) => response.end('{"items":[{"id":1}]}')],
    [
      'a redirect',
      (_request, response) =>
        response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end('{"items":[]}'),
    ],
    [
      'half an answer',
      (_request, response) => {
        response.writeHead(200, { 'content-length': '100' }).write('{')
        setTimeout(() => response.destroy(), 50)
      },
    ],
    [
      'a problem with escape sequences',
      (_request, response) =>
        response.writeHead(403).end(JSON.stringify({ title: '\u001b[2J', code: 'x' })),
    ],
  ]
  for (const [what, listener] of answers) {
    it(`exits 1 on ${what}, and prints none of it as it came`, async () => {
      const { code, out, err } = await against(listener)
      expect([code, out]).to.deep.equal([1, ''])
      expect(err)
        .to.match(/^nestgate: .+\n$/)
        .and.not.match(/[^\n\P{Cc}]/u)
      expect(err).to.not.contain('my-token')
    })
  }

  it('sends the token only to a server with the right certificate, whatever the environment says', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'nestgate-tls-'))
    writeCertificates({ dir, brokerHosts: ['127.0.0.1'], webhookHosts: ['x.svc'], days: 2 })
    const seen: (string | undefined)[] = []
    const server = createTlsServer(
      { cert: readFileSync(join(dir, 'broker.crt')), key: readFileSync(join(dir, 'broker.key')) },
      (request, response) => {
        seen.push(request.headers.authorization)
        response.end('{"items":[]}')
      },
    ).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const env = { NESTGATE_BROKER_URL: `https://127.0.0.1:${port}`, NESTGATE_TOKEN: 'my-token' }
    const untrusted = await run(['approvals', 'list'], {
      ...env,
      NODE_TLS_REJECT_UNAUTHORIZED: '0',
    })
    expect([untrusted.code, seen]).to.deep.equal([1, []])
    const trusted = await run(['approvals', 'list'], {
      ...env,
      NESTGATE_CA_FILE: join(dir, 'ca.crt'),
    })
    expect([trusted.code, trusted.out, seen]).to.deep.equal([
      0,
      'No held requests.\n',
      ['Bearer my-token'],
    ])
    server.close()
    server.closeAllConnections()
    rmSync(dir, { recursive: true })
  })
})
