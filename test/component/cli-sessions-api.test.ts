/** `nestgate sessions` against the API itself, over recordings that are sealed, archived, and told to the ledger. */
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { openRecordings } from '../../broker/sessions/recordings/open.ts'
import type { OpenRecordings } from '../../broker/sessions/recordings/open.ts'
import { sessionsSchema } from '../../broker/sessions/recordings/settings.ts'
import type { Store } from '../../broker/store/store.ts'
import { runCli } from '../../cli/program.ts'
import { encodeJsonEvent } from '../../shared/recording/payloads.ts'
import type { SessionFacts } from '../../shared/recording/session-wire.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'
import { ENDED, facts, output, TERMS, TOTALS, until } from '../support/recordings.ts'
import { SILENT } from '../support/sqlite-store.ts'

describe('nestgate sessions, against the API', () => {
  let api: ApiServer
  let recordings: OpenRecordings
  let dataDir: string
  beforeEach(async () => {
    dataDir = mkdtempSync(join(tmpdir(), 'nestgate-cli-sessions-api-'))
    let store: Store | undefined
    // the API wants them before its store is there
    const sessions = new Proxy({} as OpenRecordings, {
      get: (_, key) => {
        const value = Reflect.get(recordings, key) as unknown
        return typeof value === 'function' ? (value.bind(recordings) as unknown) : value
      },
    })
    api = await startApi((own) => (store = own), {}, { sessions })
    recordings = await openRecordings(sessionsSchema.parse({}), {
      ...{ store: store!, dataDir, log: SILENT, now: Date.now },
      freeBytes: () => Promise.resolve(2 ** 50),
      ...{ chunkAgeMs: 20, everyMs: { poll: 20 } },
    })
  })
  afterEach(async () => {
    await recordings.close()
    await api.close()
    rmSync(dataDir, { recursive: true, force: true })
  })

  async function cli(
    args: readonly string[],
    as = 'carol',
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
      args,
      env: { NESTGATE_BROKER_URL: api.url, NESTGATE_TOKEN: `token-${as}` },
      now: Date.now,
      out: (text) => (out += text),
      err: (text) => (err += text),
      stdout,
    })
    return { code, out, err, bytes: Buffer.concat(pieces) }
  }

  const header = ({ id, kind, cluster, namespace, name, tty, startedAt }: SessionFacts): Buffer =>
    encodeJsonEvent('header', 0, { version: 1, id, kind, cluster, namespace, name, tty, startedAt })

  async function record(session: SessionFacts): Promise<Buffer> {
    const writer = await recordings.begin(session, TERMS)
    const events = [
      header(session),
      encodeJsonEvent('marker', 0, { kind: 'masked', text: 'jwt', stream: 'stdout', length: 9 }),
      output('a needle\nü', 5),
      output(Buffer.alloc(60_000, 'x'), 6),
      encodeJsonEvent('result', 7, { status: 'Success', exitCode: 0 }),
      encodeJsonEvent('end', 8, TOTALS),
    ]
    for (const event of events) writer.write(event)
    await writer.end(ENDED)
    return Buffer.concat(events)
  }

  it('lists, shows, plays, exports, searches, and makes a link', async () => {
    const session = facts()
    const events = await record(session)
    const { id } = session
    expect((await cli(['sessions', 'list', '--kind', 'exec'], 'bob')).out).to.contain(id)
    const json = await cli(['--output', 'json', 'sessions', 'list', '--name', 'shop'])
    expect(JSON.parse(json.out)).to.have.nested.property('sessions[0].id', id)
    const shown = await cli(['sessions', 'show', id])
    expect(shown).to.include({ code: 0, err: '' })
    expect(shown.out).to.contain('masked: jwt').and.contain('Exit code:  0')
    const played = await cli(['sessions', 'play', id])
    expect(played.code).to.equal(0)
    expect(played.bytes.toString()).to.match(/^a needle\r\nüx{60000}$/)
    const exported = await cli(['sessions', 'export', id, '--format', 'events'])
    expect(exported.bytes.equals(events)).to.equal(true)
    const found = await cli(['sessions', 'grep', 'needle'])
    expect(found.out).to.contain(`${id}  ${session.startedAt} +0.000 s  stdout:1: a needle`)
    expect(found.err).to.contain('1 sessions searched')
    const view = await cli(['sessions', 'view', id])
    expect(view.out).to.contain(id).and.contain('#ticket=')
    const reader = await cli(['sessions', 'show', id], 'bob')
    expect(reader.code).to.equal(0)
    expect(reader.err).to.contain('role_missing')
  })

  it('follows a session until somebody ends it', async () => {
    const session = facts()
    const writer = await recordings.begin(session, TERMS)
    writer.write(header(session))
    writer.write(output('first\n', 5))
    writer.killed.addEventListener('abort', () => {
      writer.write(output('last\n', 6))
      void writer.end({ totals: TOTALS, ending: 'killed' })
    })
    const following = cli(['sessions', 'follow', session.id], 'bob')
    await until(async () => Number(await recordings.size(session.id)) > 0)
    const killed = await cli(['sessions', 'kill', session.id, '--reason', 'enough'], 'bob')
    expect(killed.code).to.equal(0)
    const followed = await following
    expect(followed.bytes.toString()).to.equal('first\r\nlast\r\n')
    expect(followed.err).to.contain('the session is over: killed')
    expect(followed.code).to.equal(0)
    const late = await cli(['sessions', 'follow', session.id], 'bob')
    expect(late.code).to.equal(1)
    expect(late.err).to.contain('session_over')
  })

  it('verifies with the ledger, and finds a byte that was changed in the archive', async () => {
    const session = facts()
    await record(session)
    const { code, out } = await cli(['sessions', 'verify', session.id])
    expect(out).to.match(/^verified: /)
    expect(code).to.equal(0)
    const archived = await until(() => archivedFile(join(dataDir, 'archive'), session.id))
    const bytes = readFileSync(archived)
    bytes[bytes.length - 1]! ^= 1
    writeFileSync(archived, bytes)
    const forged = await cli(['sessions', 'verify', session.id])
    expect(forged.out)
      .to.match(/^NOT VERIFIED: /)
      .and.contain('another running hash')
    expect(forged.code).to.equal(1)
    const played = await cli(['sessions', 'play', session.id])
    expect(played.code).to.equal(1)
  })
})

/** The first file of a session's in the archive. */
function archivedFile(folder: string, id: string): string | undefined {
  const found = readdirSync(folder, { recursive: true, withFileTypes: true }).find(
    (entry) => entry.isFile() && join(entry.parentPath, entry.name).includes(id),
  )
  return found === undefined ? undefined : join(found.parentPath, found.name)
}
