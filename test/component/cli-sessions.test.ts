/** `nestgate sessions` against a server that answers as the broker's API does. */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { expect } from 'chai'
import { after, before, beforeEach, describe, it } from 'mocha'
import { runCli } from '../../cli/program.ts'
import { encodeChunkHeader, firstHash, nextHash } from '../../shared/recording/chain.ts'
import { encodeOutput } from '../../shared/recording/events.ts'
import { encodeJsonEvent } from '../../shared/recording/payloads.ts'
import type { Session } from '../../shared/recording/session-wire.ts'

const ID = '01900000-0000-7000-8000-000000000001'
const HASH = 'a'.repeat(64)
const MAIN = new URL('../../cli/main.ts', import.meta.url).pathname
const HOSTILE = '\u001b]52;c;AA==\u0007\u001b[6n'

const SESSION: Session = {
  id: ID,
  kind: 'exec',
  cluster: 'prod',
  namespace: 'shop',
  name: 'api-0',
  container: 'app',
  command: ['sh', '-c', 'echo \u001b[2Jhi'],
  tty: false,
  stdin: true,
  subject: 'system:serviceaccount:shop:agent',
  agent: 'fixer',
  chain: ['shell', 'entrypoint'],
  rules: ['shop-exec'],
  policyDigest: HASH,
  approval: { id: ID, approvers: ['bob'], reason: 'incident 7' },
  protocol: 'v5.channel.k8s.io',
  startedAt: '2026-11-26T12:00:00.000Z',
  state: 'ended',
  endedAt: '2026-11-26T12:00:03.000Z',
  result: { status: 'Failure', exitCode: 3 },
  totals: {
    stdinBytes: 4,
    stdoutBytes: 10,
    stderrBytes: 5,
    connections: 1,
    bytesUp: 2,
    bytesDown: 3,
    files: 1,
    masked: 1,
    truncated: false,
  },
}

const STDOUT = Buffer.concat([Buffer.from(`one\n${HOSTILE}two ü\n`), Buffer.of(0xff, 0x00)])
const EVENTS = Buffer.concat([
  encodeJsonEvent('header', 0, {
    version: 1,
    id: ID,
    kind: 'exec',
    cluster: 'prod',
    namespace: 'shop',
    name: 'api-0',
    tty: false,
    startedAt: SESSION.startedAt,
  }),
  encodeJsonEvent('marker', 0, { kind: 'approved', text: 'by bob' }),
  ...encodeOutput('stdout', 1000, STDOUT),
  ...encodeOutput('stderr', 1_001_000, Buffer.from('three')),
  encodeJsonEvent('result', 61_001_000, { status: 'Failure', exitCode: 3 }),
])

/** Sealed chunks, and the states behind each. */
function seal(count: number): { bytes: Buffer[]; states: Session['recording'][] } {
  let hash: Buffer = firstHash(ID)
  const bytes: Buffer[] = []
  const states: Session['recording'][] = []
  for (let i = 0; i < count; i += 1) {
    const body = randomBytes(116)
    const header = encodeChunkHeader(body.length, i, i === count - 1 ? 1 : 0)
    hash = nextHash(hash, header, body)
    bytes.push(Buffer.concat([header, body]))
    states.push({
      mode: 'required',
      masked: true,
      stdin: false,
      chunks: i + 1,
      bytes: 100 * (i + 1),
      runningSha256: hash.toString('hex'),
    })
  }
  return { bytes, states }
}

type Answer = (request: IncomingMessage, response: ServerResponse, body: string) => void

describe('nestgate sessions', () => {
  const answers = new Map<string, Answer>()
  const asked: string[] = []
  let server: Server
  let folder: string
  let url: string

  function answer(path: string, value: object | string | Uint8Array): void {
    answers.set(path, (_, response) => {
      const isJson = typeof value === 'object' && !(value instanceof Uint8Array)
      response.end(isJson ? JSON.stringify(value) : value)
    })
  }

  async function cli(
    args: readonly string[],
    isTTY = false,
  ): Promise<{ code: number; out: string; err: string; bytes: Buffer }> {
    let [out, err] = ['', '']
    const pieces: Buffer[] = []
    const stdout = new Writable({
      write(piece: Buffer, _, done) {
        pieces.push(piece)
        done()
      },
    })
    const code = await runCli({
      args: ['sessions', ...args],
      env: { NESTGATE_BROKER_URL: url, NESTGATE_TOKEN: 'token-erin' },
      now: Date.now,
      out: (text) => (out += text),
      err: (text) => (err += text),
      stdout: Object.assign(stdout, { isTTY }),
    })
    return { code, out, err, bytes: Buffer.concat(pieces) }
  }

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'nestgate-cli-sessions-'))
    server = createServer((request, response) => {
      let body = ''
      request.on('data', (piece: Buffer) => (body += piece.toString()))
      request.on('end', () => {
        asked.push(`${request.method} ${request.url}`)
        const path = request.url!.split('?')[0]!
        const found = answers.get(`${request.method} ${path}`) ?? answers.get(path)
        if (found !== undefined) found(request, response, body)
        else
          response
            .writeHead(404)
            .end('{"title":"there is no such session","code":"session_unknown"}')
      })
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  beforeEach(() => {
    answers.clear()
    asked.length = 0
    const recording = seal(1).states[0]!
    answer(`/v1/sessions/${ID}`, { ...SESSION, recording })
    answer(`/v1/sessions/${ID}/events`, EVENTS)
  })
  after(() => {
    server.close()
    rmSync(folder, { recursive: true })
  })

  it('lists by what is asked for, over short pages, and shows nothing harmful', async () => {
    const pages = [
      { sessions: [SESSION], next: 'more' },
      { sessions: [], next: 'end' },
      { sessions: [SESSION] },
    ]
    answers.set('/v1/sessions', (_, response) => response.end(JSON.stringify(pages.shift())))
    const { code, out } = await cli(['list', '--cluster', 'prod', '--kind', 'exec', '--limit', '7'])
    expect(code).to.equal(0)
    expect(out.split('\n').filter((line) => line.startsWith(ID))).to.have.length(2)
    expect(out).to.contain('exit 3').and.contain('fixer').and.not.contain('\u001b')
    expect(asked).to.deep.equal([
      'GET /v1/sessions?cluster=prod&kind=exec&limit=7',
      'GET /v1/sessions?cluster=prod&kind=exec&limit=6&cursor=more',
      'GET /v1/sessions?cluster=prod&kind=exec&limit=6&cursor=end',
    ])
    answer('/v1/sessions', { sessions: [] })
    expect((await cli(['list'])).out).to.equal('No sessions.\n')
    expect((await cli(['list', '--kind', 'dance'])).code).to.equal(2)
    expect((await cli(['list', '--limit', '0'])).code).to.equal(2)
    answer('/v1/sessions', { sessions: [{ id: 'half' }] })
    expect(await cli(['list'])).to.include({ code: 1, out: '' })
  })

  it('shows who, by whom allowed, files, connections, markers', async () => {
    answer(`/v1/sessions/${ID}/details`, {
      items: [
        { type: 'marker', atUs: 1_500_000, value: { kind: 'approved', text: 'by bob\u001b[2J' } },
        {
          type: 'file',
          atUs: 2,
          value: {
            direction: 'fromPod',
            name: 'etc/\u202ex',
            type: 'file',
            size: 7,
            sha256: HASH,
          },
        },
        {
          type: 'connectionClosed',
          atUs: 2,
          value: {
            connection: 4,
            port: 8080,
            bytesUp: 2,
            bytesDown: 3,
            sha256Up: HASH,
            sha256Down: HASH,
          },
        },
      ],
      more: ['file'],
    })
    const { code, out, err } = await cli(['show', ID])
    expect({ code, err }).to.deep.equal({ code: 0, err: '' })
    for (const part of [
      'prod/shop/api-0',
      'shell < entrypoint',
      'shop-exec',
      'bob',
      'incident 7',
      'Exit code:  3',
      'after 3.0 s',
      '1.500 s  approved: by bob\\u{1b}[2J',
      `${HASH}  7 bytes  file from the pod  etc/\\u{202e}x`,
      '4, port 8080',
      `down  ${HASH}  3 bytes`,
      'There are more of: file',
      'Running SHA-256',
    ])
      expect(out, part).to.contain(part)
    expect(out).not.to.contain('\u001b').and.not.to.contain('\u202e')
  })

  it('shows what can be shown to who may not read the recording', async () => {
    const { code, out, err } = await cli(['show', ID])
    expect(code).to.equal(0)
    expect(out).to.contain('incident 7')
    expect(err).to.contain('cannot be shown').and.contain('session_unknown')
  })

  it('plays neutralised, with bounded pauses', async () => {
    const begun = Date.now()
    const { code, bytes, err } = await cli(['play', ID, '--max-idle', '0.2', '--speed', '2'], true)
    const took = Date.now() - begun
    expect(code).to.equal(0)
    const text = bytes.toString()
    expect(text).to.contain('one\r\ntwo ü\r\n\ufffd').and.contain('three')
    expect(text).not.to.contain('\u001b]').and.not.to.contain('\u001b[6n')
    expect(text.endsWith('\u001b[?25h\u001b(B\u000f\u001b[0m\r\n')).to.equal(true)
    expect(err).to.contain('approved: by bob').and.contain('ended with status 3')
    expect(took).to.be.within(400, 3000)
    expect((await cli(['play', ID, '--speed', '0'])).code).to.equal(2)
    expect((await cli(['play', 'no-id'])).code).to.equal(2)
    expect((await cli(['play', ID, '--raw'])).code).to.equal(2)
  })

  it('says where a recording is not readable, behind what is', async () => {
    answer(
      `/v1/sessions/${ID}/events`,
      Buffer.concat([EVENTS, Buffer.of(99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]),
    )
    const { code, bytes, err } = await cli(['play', ID, '--max-idle', '0'])
    expect(code).to.equal(1)
    expect(bytes.toString()).to.contain('three')
    expect(err).to.contain(`not readable`).and.contain(`at byte ${EVENTS.length}`)
  })

  it('follows until the session ends', async () => {
    answers.set(`/v1/sessions/${ID}/follow`, (_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      // cut anywhere: the broker sends whole events, and nothing depends on it
      for (const piece of [EVENTS.subarray(0, 100), EVENTS.subarray(100)])
        response.write(`id: 1\nevent: events\ndata: ${piece.toString('base64')}\n\n`)
      response.end(`: alive\n\nevent: end\ndata: ${JSON.stringify(SESSION)}\n\n`)
    })
    const { code, bytes, err } = await cli(['follow', ID])
    expect(code).to.equal(0)
    expect(bytes.toString()).to.contain('one\r\ntwo ü').and.not.contain('\u001b')
    expect(err).to.contain('the session is over: exit 3')
    answers.set(`/v1/sessions/${ID}/follow`, (_, response) => response.end(': alive\n\n'))
    expect(await cli(['follow', ID])).to.include({ code: 1 })
  })

  it('exports the exact bytes, events, lines and asciicast', async () => {
    const all: [string, Buffer][] = [
      ['raw', Buffer.concat([STDOUT, Buffer.from('three')])],
      ['stdout', STDOUT],
      ['stderr', Buffer.from('three')],
      ['events', EVENTS],
    ]
    for (const [format, expected] of all) {
      const { code, bytes, err } = await cli(['export', ID, '--format', format])
      expect({ code, err }).to.deep.equal({ code: 0, err: '' })
      expect(bytes.equals(expected), format).to.equal(true)
      const file = join(folder, format)
      const saved = await cli(['export', ID, '--format', format, '-o', file])
      expect(saved.out).to.equal(`${expected.length} bytes written\n`)
      expect(readFileSync(file).equals(expected), format).to.equal(true)
      expect(statSync(file).mode & 0o777).to.equal(0o600)
      expect((await cli(['export', ID, '--format', format, '-o', file])).code).to.equal(2)
    }
    const cast = (await cli(['export', ID, '--idle-time-limit', '2'])).bytes
      .toString()
      .trim()
      .split('\n')
    expect(JSON.parse(cast[0]!)).to.include({ version: 3, idle_time_limit: 2 })
    expect(JSON.parse(cast.at(-1)!)).to.deep.equal([60, 'x', '3'])
    expect(cast.join('\n')).not.to.contain('\\u001b')
    const raw = (await cli(['export', ID, '--raw'])).bytes.toString()
    expect(raw).to.contain('\\u001b]52')
    const lines = (await cli(['export', ID, '--format', 'ndjson'])).bytes
      .toString()
      .trim()
      .split('\n')
    expect(lines.map((line) => (JSON.parse(line) as { type: string }).type)).to.deep.equal([
      'header',
      'marker',
      'stdout',
      'stderr',
      'result',
    ])
    expect(JSON.parse(lines[2]!)).to.deep.equal({
      type: 'stdout',
      atUs: 1000,
      bytes: STDOUT.toString('base64'),
    })
  })

  it('exports to no terminal, and gives no name to what is not whole', async () => {
    const refused = await cli(['export', ID, '--format', 'raw'], true)
    expect(refused).to.include({ code: 2 })
    expect(refused.bytes).to.have.length(0)
    expect(asked).to.deep.equal([])
    expect((await cli(['export', ID, '--format', 'raw', '--raw', '-o', 'x'])).code).to.equal(2)
    answers.set(`/v1/sessions/${ID}/events`, (_, response) => {
      response.writeHead(200, { 'content-length': EVENTS.length })
      response.write(EVENTS.subarray(0, EVENTS.length - 1), () => response.destroy())
    })
    const file = join(folder, 'broken')
    const { code, err } = await cli(['export', ID, '--format', 'stdout', '-o', file])
    expect(code).to.equal(1)
    expect(err).to.contain('not whole')
    expect(existsSync(file)).to.equal(false)
    expect(existsSync(`${file}.part`)).to.equal(true)
    // of a session that was cut, the bytes end where the last event does not
    answer(`/v1/sessions/${ID}/events`, EVENTS.subarray(0, EVENTS.length - 1))
    expect((await cli(['export', ID, '--format', 'stdout', '-o', `${file}2`])).code).to.equal(1)
  })

  it('searches, over all pages', async () => {
    const match = {
      id: ID,
      startedAt: SESSION.startedAt,
      atUs: 1_500_000,
      stream: 'stdout',
      line: 4,
    }
    const pages = [
      `${JSON.stringify({ ...match, text: 'a \u001b[2J secret' })}\n${JSON.stringify({ searched: 2, more: 'next' })}\n`,
      `${JSON.stringify({ ...match, line: 5, text: 'b' })}\n${JSON.stringify({ searched: 1, unread: [ID] })}\n`,
      `${JSON.stringify({ ...match, text: 'cut' })}\n`,
    ]
    answers.set('/v1/sessions/grep', (_, response) => response.end(pages.shift()))
    const { code, out, err } = await cli(['grep', 'a b', '--agent', 'fixer', '--ignore-case'])
    expect(code).to.equal(0)
    expect(out.split('\n')).to.deep.equal([
      `${ID}  ${SESSION.startedAt} +1.500 s  stdout:4: a \\x1b[2J secret`,
      `${ID}  ${SESSION.startedAt} +1.500 s  stdout:5: b`,
      '',
    ])
    expect(err).to.contain('3 sessions searched').and.contain('could not be read')
    expect(asked[1]).to.equal(
      'GET /v1/sessions/grep?agent=fixer&text=a+b&ignoreCase=true&cursor=next',
    )
    const broken = await cli(['grep', 'x'])
    expect(broken.code).to.equal(1)
    expect(broken.err).to.contain('the search broke off')
  })

  it('ends a session, and makes a link', async () => {
    answers.set(`POST /v1/sessions/${ID}/kill`, (_, response, body) => {
      expect(JSON.parse(body)).to.deep.equal({ reason: 'enough' })
      response.end(JSON.stringify({ ...SESSION, ending: 'killed' }))
    })
    const killed = await cli(['kill', ID, '--reason', 'enough'])
    expect(killed).to.include({ code: 0, out: `${ID}  ended  exit 3, killed\n` })
    expect((await cli(['kill', ID])).code).to.equal(2)
    const view = { url: 'https://broker/sessions/x#ticket=t', expiresAt: '2026-11-26T12:05:00Z' }
    answer(`POST /v1/sessions/${ID}/view`, view)
    const { out, err } = await cli(['view', ID])
    expect(out).to.equal(`${view.url}\n`)
    expect(err).to.contain(view.expiresAt)
  })

  describe('verify', () => {
    const { bytes, states } = seal(4)

    function entries(claims: readonly [string, Session['recording']][]): void {
      const items = claims.map(([event, state], i) => ({
        seq: 10 + i,
        time: SESSION.startedAt,
        kind: 'session',
        requestId: ID,
        entry: {
          kind: 'session',
          event,
          detail: {
            chunks: state!.chunks,
            bytes: state!.bytes,
            runningSha256: state!.runningSha256,
          },
        },
      }))
      const started = {
        ...items[0]!,
        seq: 9,
        entry: { kind: 'session', event: 'started', detail: { kind: 'exec' } },
      }
      answer('/v1/audit/events', { items: [started, ...items] })
    }

    beforeEach(() => {
      answer(`/v1/sessions/${ID}`, { ...SESSION, recording: states[3]! })
      answer(`/v1/sessions/${ID}/sealed`, Buffer.concat(bytes))
      entries([
        ['ended', states[3]],
        ['progress', states[1]],
      ])
    })

    it('says what fits', async () => {
      const { code, out } = await cli(['verify', ID])
      expect(out)
        .to.match(/^verified: /)
        .and.contain('entries of the ledger: 10, 11')
      expect(out).to.contain('4 chunks, 400 bytes')
      expect(code).to.equal(0)
      expect(asked).to.include(`GET /v1/audit/events?kind=session&requestId=${ID}&limit=1000`)
    })

    it('lets a running session be ahead of what is said of it', async () => {
      answer(`/v1/sessions/${ID}`, { ...SESSION, state: 'running', recording: states[2]! })
      entries([['progress', states[1]]])
      const { code, out } = await cli(['verify', ID])
      expect(code).to.equal(0)
      expect(out).to.contain('2 chunks are younger')
    })

    const forged: [string, () => void, RegExp][] = [
      [
        'a changed byte',
        () => {
          const all = Buffer.concat(bytes)
          all[200]! ^= 1
          answer(`/v1/sessions/${ID}/sealed`, all)
        },
        /another running hash/,
      ],
      [
        'a missing end',
        () => {
          answer(`/v1/sessions/${ID}/sealed`, Buffer.concat(bytes.slice(0, 3)))
        },
        /says that there are 4 chunks.*the last chunk is missing/,
      ],
      [
        'a torn chunk',
        () => {
          answer(`/v1/sessions/${ID}/sealed`, Buffer.concat(bytes).subarray(0, 450))
        },
        /it ends within a chunk/,
      ],
      [
        'another order',
        () => {
          answer(
            `/v1/sessions/${ID}/sealed`,
            Buffer.concat([bytes[1]!, bytes[0]!, bytes[2]!, bytes[3]!]),
          )
        },
        /chunk 1 stands where chunk 0 belongs/,
      ],
      [
        'a truncated recording with a document to match',
        () => {
          answer(`/v1/sessions/${ID}`, { ...SESSION, recording: states[1]! })
          answer(`/v1/sessions/${ID}/sealed`, Buffer.concat(bytes.slice(0, 2)))
        },
        /entry 10 \(ended\) says that there are 4 chunks/,
      ],
      [
        'another document',
        () => {
          answer(`/v1/sessions/${ID}`, {
            ...SESSION,
            recording: { ...states[3]!, runningSha256: HASH },
          })
        },
        /document has another running hash/,
      ],
      [
        'a ledger without the end',
        () => {
          entries([['progress', states[1]]])
        },
        /no entry of its end/,
      ],
      [
        'a count of bytes that is not so',
        () => {
          entries([['ended', { ...states[3]!, bytes: 401 }]])
        },
        /401 bytes, not 400/,
      ],
    ]
    for (const [what, forge, expected] of forged)
      it(`finds ${what}`, async () => {
        forge()
        const { code, out } = await cli(['verify', ID])
        expect(out)
          .to.match(/^NOT VERIFIED: /)
          .and.match(expected)
        expect(code).to.equal(1)
        const json = await cli(['verify', ID])
        expect(json.code).to.equal(1)
      })
  })

  it('works as a process: exact bytes through a pipe, and ends on an interrupt', async () => {
    const env = { NESTGATE_BROKER_URL: url, NESTGATE_TOKEN: 'token-erin' }
    const exported = spawn(process.execPath, [MAIN, 'sessions', 'export', ID, '--format', 'raw'], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const pieces: Buffer[] = []
    exported.stdout.on('data', (piece: Buffer) => pieces.push(piece))
    const [exit] = (await once(exported, 'close')) as [number]
    expect(exit).to.equal(0)
    expect(Buffer.concat(pieces).equals(Buffer.concat([STDOUT, Buffer.from('three')]))).to.equal(
      true,
    )
    const played = spawn(process.execPath, [MAIN, 'sessions', 'play', ID, '--max-idle', '60'], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let out = ''
    let err = ''
    played.stderr.on('data', (piece: Buffer) => (err += piece.toString()))
    played.stdout.on('data', (piece: Buffer) => {
      out += piece.toString()
      if (out.includes('three')) played.kill('SIGINT')
    })
    const [code] = (await once(played, 'close')) as [number | null]
    expect(out).to.contain('three')
    expect(err).to.contain('approved: by bob').and.not.contain('Error')
    expect(code).to.equal(0)
    answers.set(`/v1/sessions/${ID}/follow`, (_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write(`event: events\ndata: ${EVENTS.toString('base64')}\n\n`)
    })
    const followed = spawn(process.execPath, [MAIN, 'sessions', 'follow', ID], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let notes = ''
    followed.stderr.on('data', (piece: Buffer) => {
      notes += piece.toString()
      if (notes.includes('ended with status')) followed.kill('SIGINT')
    })
    const [ended] = (await once(followed, 'close')) as [number | null]
    expect(notes).not.to.contain('Error')
    expect(ended).to.equal(0)
  })
})
