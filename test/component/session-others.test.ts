/** What is a session without looking like one: log streams, changes of ephemeral containers, held commands; and rules that want less than all. */
import { renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Agent, request } from 'undici'
import { expect } from 'chai'
import { after, afterEach, before, describe, it } from 'mocha'
import { noise } from '../support/fake-kubelet.ts'
import {
  CHANNEL,
  forwardOver,
  openChannels,
  openRawWebSocket,
  openSpdy,
  rawFrame,
} from '../support/remote-clients.ts'
import { bytesOf, jsonOf, TYPE } from '../support/remote-recording.ts'
import { startSessionWorld } from '../support/session-world.ts'
import type { SessionWorld } from '../support/session-world.ts'

const SLOW_MS = 60_000
const V5 = 'v5.channel.k8s.io'
const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: look, match: {verbs: [get, list], resources: [pods]}, effect: allow}
- {id: logs, match: {verbs: [get], resources: [pods/log]}, effect: allow, record: required}
- {id: debug, match: {verbs: [update, patch], resources: [pods/ephemeralcontainers]}, effect: allow}
- {id: off, match: {verbs: [connect], resources: [pods/exec], resourceNames: [p]}, effect: allow, record: off}
- {id: held, match: {verbs: [connect], resources: [pods/attach]}, effect: hold}
- {id: may, match: {verbs: [connect], resources: [pods/portforward]}, effect: allow, record: {mode: best_effort, tunnelBytes: 100000000, mask: false}}
`

interface Reply {
  readonly status: number
  readonly bytes: Buffer
}

describe('other sessions', () => {
  let world: SessionWorld
  let client: Agent
  let usual: SessionWorld['upstream']['onRequest']

  before(async function () {
    this.timeout(SLOW_MS)
    world = await startSessionWorld(POLICY)
    usual = world.upstream.onRequest
    client = new Agent({ connect: { ca: world.ca } })
  })
  after(async function () {
    this.timeout(SLOW_MS)
    await client.destroy()
    await world.close()
  })
  afterEach(() => {
    world.upstream.onRequest = usual
    for (const socket of world.kubelet.sockets) socket.destroy()
  })

  const call = async (method: 'GET' | 'PATCH', sub: string, body?: string): Promise<Reply> => {
    const { port, path, headers = {} } = world.address(sub)
    const answer = await request(`https://127.0.0.1:${port}${path}`, {
      ...{ dispatcher: client, method },
      headers: {
        ...headers,
        'accept-encoding': 'gzip',
        ...(body === undefined ? {} : { 'content-type': 'application/strategic-merge-patch+json' }),
      },
      ...(body === undefined ? {} : { body }),
    })
    return { status: answer.statusCode, bytes: Buffer.from(await answer.body.arrayBuffer()) }
  }
  const onLog = (answer: (request: IncomingMessage, response: ServerResponse) => void): void => {
    world.upstream.onRequest = (given, response, body) => {
      if ((given.url ?? '').includes('/log')) answer(given, response)
      else usual(given, response, body)
    }
  }
  /** Takes the spool away meanwhile. */
  const withoutSpool = async (work: () => Promise<void>): Promise<void> => {
    const spool = join(world.dataDir, 'recordings')
    renameSync(spool, `${spool}.aside`)
    writeFileSync(spool, 'no folder')
    try {
      await work()
    } finally {
      rmSync(spool, { force: true })
      renameSync(`${spool}.aside`, spool)
    }
  }

  it('a log stream is recorded as its client saw it, and asked for as text', async () => {
    const lines = noise(400_000, 8)
    let encoding: string | string[] | undefined
    onLog(({ headers }, response) => {
      encoding = headers['accept-encoding']
      response.writeHead(200, { 'content-type': 'text/plain' })
      for (let at = 0; at < lines.length; at += 10_000)
        response.write(lines.subarray(at, at + 10_000))
      response.end()
    })
    const { status, bytes } = await call('GET', 'log?follow=true')
    expect([status, bytes.equals(lines)]).to.deep.equal([200, true])
    expect(encoding).to.equal('identity')
    const session = await world.settled()
    expect(session).to.include({ kind: 'logs', state: 'ended' })
    expect(bytesOf(world.recording(session.id), TYPE.stdout)).to.have.length(lines.length)
  })

  it('a log stream that breaks, and a client that leaves, leave whole recordings', async () => {
    onLog((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/plain' })
      response.write('so far\n')
      setTimeout(() => response.destroy(), 100)
    })
    await call('GET', 'log?follow=true').catch(() => undefined)
    const session = await world.settled()
    expect(session.ending).to.equal('stream_broken')
    const recording = world.recording(session.id)
    expect([recording.isComplete, bytesOf(recording, TYPE.stdout).toString()]).to.deep.equal([
      true,
      'so far\n',
    ])
  })

  it('a log stream that must be recorded and cannot be is not asked for', async () => {
    let asked = 0
    onLog((_request, response) => {
      asked += 1
      response.end('unseen')
    })
    await withoutSpool(async () => {
      const { status, bytes } = await call('GET', 'log')
      expect(status).to.equal(503)
      expect(bytes.toString()).to.contain('recording_unavailable')
    })
    expect(asked).to.equal(0)
  })

  it('a change of ephemeral containers is a session of its own, before it is made', async () => {
    let seenBefore = false
    const count = world.sessions().length
    world.upstream.onRequest = (_request, response) => {
      seenBefore = world.sessions().length === count + 1
      response.writeHead(200, { 'content-type': 'application/json' }).end('{"kind":"Pod"}')
    }
    const patch = JSON.stringify({
      spec: { ephemeralContainers: [{ name: 'debugger', image: 'busybox' }] },
    })
    const { status } = await call('PATCH', 'ephemeralcontainers', patch)
    expect([status, seenBefore]).to.deep.equal([200, true])
    const session = world.sessions().at(-1)
    expect(session).to.include({ kind: 'debug', state: 'ended' })
    expect(session).not.to.have.property('recording')
  })

  it('what no rule wants recorded is terminated as well, and leaves its intent alone', async () => {
    const count = world.sessions().length
    const opened = await openChannels(world.address('exec', 'command=echo&command=x&stdout=1'), V5)
    await opened.closed
    expect(opened.bytes(CHANNEL.stdout).toString()).to.equal('x\n')
    expect(world.sessions()).to.have.length(count)
    const raw = await openRawWebSocket(world.address('exec', 'command=cat&stdin=1&stdout=1'), V5)
    raw.write(rawFrame({ payload: Buffer.of(9, 9) }))
    await Promise.race([world.kubelet.last().over, sleep(5_000)])
    expect(world.kubelet.last().stdin.bytes).to.equal(0)
    raw.destroy()
  })

  /** The request that waits, once one does. */
  const held = async (): Promise<string> => {
    for (let round = 0; round < 100; round += 1) {
      const { text } = await world.api('reviewer', '/v1/approvals')
      const found = /"id":"([0-9a-f-]{36})"/.exec(text)?.[1]
      if (found !== undefined) return found
      await sleep(50)
    }
    throw new Error('nothing is held')
  }

  it('a held command runs once it is approved, and its recording says by which approval', async () => {
    world.kubelet.attached = async (io) => {
      await io.stdout('approved output')
      return 0
    }
    const dialled = world.kubelet.sessions.length
    const opening = openChannels(world.address('attach', 'stdout=1'), V5)
    const id = await held()
    expect(world.kubelet.sessions).to.have.length(dialled)
    const { status, text } = await world.api('reviewer', `/v1/approvals/${id}/approve`, {
      reason: 'seen',
    })
    expect(status, text).to.be.oneOf([200, 202, 204])
    const attached = await opening
    await attached.closed
    expect(attached.bytes(CHANNEL.stdout).toString()).to.equal('approved output')
    const session = await world.settled()
    expect(JSON.stringify(session)).to.contain('"approvers":["reviewer"]').and.to.contain('seen')
    const markers = jsonOf(world.recording(session.id), TYPE.marker)
    // no name of a person, which could not be erased from it
    const text_ = String(markers.find(({ kind }) => kind === 'approved')?.['text'])
    expect(text_).to.contain(id).and.not.to.contain('reviewer')
  }).timeout(SLOW_MS)

  it('best_effort goes on without its recording, and the ledger says so', async () => {
    await withoutSpool(async () => {
      const { peer } = await openSpdy(world.address('portforward'), 'portforward.k8s.io')
      const { error } = await forwardOver(peer, 81, '0')
      await error.ended
      expect(error.bytes.toString()).to.contain('refused')
      peer.socket.destroy()
    })
    const { text } = await world.api('auditor', '/v1/audit/events?limit=30')
    expect(text).to.contain('"unrecorded"')
  })
})
