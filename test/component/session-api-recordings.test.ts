/** The routes of sessions over what really keeps them: sealed in a spool, moved to an archive, told to a ledger. */
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import type { Killed } from '../../broker/sessions/recordings/types.ts'
import { followChain } from '../../shared/recording/chain.ts'
import { encodeJsonEvent } from '../../shared/recording/payloads.ts'
import type { Session, SessionFacts } from '../../shared/recording/session-wire.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'
import {
  ENDED,
  facts,
  output,
  pieces,
  recordingWorld,
  TERMS,
  TOTALS,
  until,
} from '../support/recordings.ts'
import type { RecordingWorld } from '../support/recordings.ts'

const MIB = 1024 * 1024

describe('the API of sessions, over recordings', () => {
  let world: RecordingWorld
  let api: ApiServer
  beforeEach(async () => {
    world = await recordingWorld({}, { chunkAgeMs: 20, everyMs: { poll: 20 } })
    api = await startApi(undefined, {}, { sessions: world.recordings })
  })
  afterEach(async () => {
    await api.close()
    await world.close()
  })

  const get = (path: string, as = 'carol'): Promise<Response> =>
    fetch(`${api.url}/v1/sessions${path}`, { headers: { authorization: `Bearer token-${as}` } })
  const header = ({ id, kind, cluster, namespace, name, tty, startedAt }: SessionFacts): Buffer =>
    encodeJsonEvent('header', 0, { version: 1, id, kind, cluster, namespace, name, tty, startedAt })

  it('hands out byte by byte what was written, sealed and plain, and finds it', async () => {
    const session = facts()
    const writer = await world.recordings.begin(session, TERMS)
    const events: Buffer[] = [header(session)]
    for (let at = 0; at < 20 * MIB; at += 60_000)
      events.push(output(Buffer.alloc(60_000, 'ab\n'), at))
    events.push(output('a needle\n', 30 * MIB), encodeJsonEvent('end', 31 * MIB, TOTALS))
    for (const event of events) {
      writer.write(event)
      await writer.room()
    }
    await writer.end(ENDED)
    const bytes = Buffer.concat(events)
    expect(
      Buffer.from(await (await get(`/${session.id}/events`)).arrayBuffer()).equals(bytes),
    ).to.equal(true)
    const sealed = Buffer.from(await (await get(`/${session.id}/sealed`)).arrayBuffer())
    const shown = (await (await get(`/${session.id}`)).json()) as Session
    expect(await followChain(session.id, pieces(sealed))).to.include({
      ...{ isComplete: true, bytes: bytes.length },
      runningSha256: shown.recording?.runningSha256,
    })
    const found = (await (await get('/grep?text=NEEDLE&ignoreCase=true')).text()).trim().split('\n')
    expect(found.map((line) => JSON.parse(line) as unknown)).to.deep.equal([
      {
        id: session.id,
        startedAt: session.startedAt,
        atUs: 30 * MIB,
        stream: 'stdout',
        line: 349 * 20_000 + 20_001,
        text: 'a needle',
      },
      { searched: 1 },
    ])
  })

  it('follows from what is durable to the end, without a gap', async () => {
    const session = facts()
    const writer = await world.recordings.begin(session, TERMS)
    const written: Buffer[] = []
    const write = (event: Buffer): void => {
      written.push(event)
      writer.write(event)
    }
    write(header(session))
    for (let at = 0; at < 3 * MIB; at += 60_000) {
      write(output(Buffer.alloc(60_000, 'x'), at))
      await writer.room()
    }
    const following = get(`/${session.id}/follow`, 'bob').then((response) => response.text())
    for (let at = 0; at < 40; at += 1) {
      write(output(`line ${at}\n`, 4 * MIB + at))
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    write(encodeJsonEvent('end', 5 * MIB, TOTALS))
    await writer.end(ENDED)
    const text = await following
    const parts = [...text.matchAll(/event: events\ndata: (.*)\n/g)].map(([, data = '']) =>
      Buffer.from(data, 'base64'),
    )
    expect(Buffer.concat(parts).equals(Buffer.concat(written))).to.equal(true)
    const [, end = '{}'] = /event: end\ndata: (.*)\n/.exec(text) ?? []
    expect(JSON.parse(end)).to.deep.include({ id: session.id, state: 'ended' })
    expect((await get(`/${session.id}/follow`, 'bob')).status).to.equal(409)
  })

  it('ends a session in the name of who asked', async () => {
    const session = facts()
    const writer = await world.recordings.begin(session, TERMS)
    writer.write(header(session))
    const response = await fetch(`${api.url}/v1/sessions/${session.id}/kill`, {
      method: 'POST',
      headers: { authorization: 'Bearer token-bob', 'content-type': 'application/json' },
      body: JSON.stringify({ reason: 'enough' }),
    })
    expect([response.status, ((await response.json()) as Session).id]).to.deep.equal([
      200,
      session.id,
    ])
    await until(() => writer.killed.aborted)
    expect(writer.killed.reason as Killed).to.include({ actor: 'bob', reason: 'enough' })
    await writer.end(ENDED)
  })
})
