/** Looking for a session that runs unrecorded, and for a recording that says something else than what ran. */
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'node:tls'
import { expect } from 'chai'
import { after, afterEach, before, describe, it } from 'mocha'
import { noise } from '../support/fake-kubelet.ts'
import { CHANNEL, openChannels, rawUpgrade, rest } from '../support/remote-clients.ts'
import { bytesOf, jsonOf, TYPE } from '../support/remote-recording.ts'
import { OPEN_POLICY, startSessionWorld, until } from '../support/session-world.ts'
import type { SessionWorld } from '../support/session-world.ts'

const SLOW_MS = 60_000
const V5 = 'v5.channel.k8s.io'
const N = '/clusters/test/api/v1/namespaces/agents'
const POLICY = `${OPEN_POLICY}- {id: logs, match: {verbs: [get], resources: [pods/log]}, effect: allow, record: required}
`

describe('attacks on the recording of sessions', () => {
  let world: SessionWorld

  before(async function () {
    this.timeout(SLOW_MS)
    world = await startSessionWorld(POLICY)
  })
  after(async function () {
    this.timeout(SLOW_MS)
    await world.close()
  })
  afterEach(() => {
    for (const socket of world.kubelet.sockets) socket.destroy()
  })

  const run = async (query: string): Promise<{ out: Buffer; id: string }> => {
    const client = await openChannels(world.address('exec', query), V5)
    await client.closed
    return { out: client.bytes(CHANNEL.stdout), id: client.requestId }
  }

  describe('requests that are not what they seem', () => {
    const UPGRADES: readonly (readonly string[])[] = [
      ['Connection: Upgrade', 'Upgrade: SPDY/3.1'],
      ['Connection: upgrade', 'Upgrade: spdy/3.1'],
      ['Connection: keep-alive, Upgrade', 'Upgrade: SPDY/3.1'],
      ['Connection: Upgrade', 'Connection: X-Stream-Protocol-Version', 'Upgrade: SPDY/3.1'],
      ['Connection: Upgrade', 'Upgrade: websocket, SPDY/3.1'],
      ['Connection: Upgrade', 'Upgrade: SPDY/3.1, websocket'],
      ['Connection: Upgrade', 'Upgrade: SPDY/3.1', 'Upgrade: websocket'],
      ['Connection: Upgrade', 'Upgrade: SPDY/3.1\t'],
      ['Connection: Upgrade', 'Upgrade: SPDY/3.10'],
      ['Connection: Upgrade', 'Upgrade: h2c'],
      ['Connection: Upgrade', 'Upgrade: tcp'],
      ['Upgrade: SPDY/3.1'],
      ['Connection: Upgrade'],
      ['Connection: close, Upgrade', 'Upgrade: SPDY/3.1'],
      [],
    ]
    const PATHS = [
      `${N}/pods/p/exec`,
      `${N}/pods/p/exec/`,
      `${N}/pods/p/ex%65c`,
      `${N}/pods/p//exec`,
      `${N}/pods/./p/exec`,
      `${N}/pods/q/../p/exec`,
      `${N}/pods/p%2Fexec`,
      `${N}/pods/p/exec;x`,
      `${N}/pods/p/EXEC`,
      `${N}/pods/p/exec/extra`,
      `/clusters/test/api/v1/nodes/n/proxy/exec/agents/p/main`,
      `/clusters/test/api/v1/proxy/nodes/n/exec/agents/p/main`,
      `/clusters/test/api/v1/watch/namespaces/agents/pods/p/exec`,
    ]

    it('reach no kubelet without a recording', async () => {
      const dialled = new Set<string>()
      world.kubelet.answer = (request, socket) => {
        dialled.add(String(request.headers['audit-id'] ?? request.headers['impersonate-user']))
        socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
        return true
      }
      let upgrades = 0
      const count = world.kubelet.answer
      world.kubelet.answer = (request, socket) => {
        upgrades += 1
        return count(request, socket)
      }
      const before_ = world.sessions().length
      for (const path of PATHS)
        for (const lines of UPGRADES)
          for (const version of ['1.1', '1.0']) {
            const text = await send(path, 'POST', version, lines)
            expect(text, `${path} ${lines.join()} ${version}`).to.match(/^HTTP\/1\.1 [45]\d\d/)
          }
      world.kubelet.answer = undefined
      const made = world.sessions().slice(before_)
      expect(made.filter(({ recording }) => recording !== undefined)).to.have.length(upgrades)
      expect(upgrades).to.be.greaterThan(0)
    }).timeout(SLOW_MS)

    async function send(
      path: string,
      method: string,
      version: string,
      lines: readonly string[],
    ): Promise<string> {
      const { port, ca, headers = {} } = world.address('exec')
      const socket = connect({ port, host: '127.0.0.1', ca })
      socket.on('error', () => undefined)
      const all = [
        `${method} ${path}?command=true&stdout=true HTTP/${version}`,
        ...['Host: broker', `Authorization: ${headers['authorization']}`, 'Content-Length: 0'],
        ...['X-Stream-Protocol-Version: v4.channel.k8s.io', ...lines],
        ...(lines.some((line) => line.startsWith('Connection')) ? [] : ['Connection: close']),
      ]
      socket.write(`${all.join('\r\n')}\r\n\r\n`)
      const timer = setTimeout(() => socket.destroy(), 300)
      let text = ''
      socket.on('data', (bytes: Buffer) => (text += bytes.toString('latin1')))
      await new Promise((resolve) => socket.once('close', resolve))
      clearTimeout(timer)
      return text
    }

    it('no hint of a client relaxes anything', async () => {
      const hints = {
        'kubectl-command': 'kubectl cp',
        'kubectl-session': 'x',
        'nestgate-record': 'off',
        'x-nestgate-record': 'off',
      }
      const client = await openChannels(
        world.address('exec', 'command=echo&command=hinted&stdout=1&record=off', hints),
        V5,
      )
      await client.closed
      expect(bytesOf(world.recording(client.requestId), TYPE.stdout).toString()).to.equal(
        'hinted\n',
      )
    })

    it('logs over WebSocket are recorded as what they say, or refused', async () => {
      const secret = 'a line of the log\n'
      world.kubelet.onProxy = ({ socket }) => {
        socket.end(Buffer.concat([Buffer.of(0x82, secret.length), Buffer.from(secret)]))
      }
      const { status, socket } = await rawUpgrade(world.address('log'), 'GET', [
        ...['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'],
        ...['Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Protocol: binary.k8s.io'],
      ])
      if (status !== 101) {
        socket.destroy()
        return
      }
      await rest(socket)
      const session = await world.settled()
      const recording = world.recording(session.id)
      const kept = Buffer.concat(recording.events.map(({ payload }) => payload))
      expect(kept.includes(secret.trim()), 'the log is in its recording').to.equal(true)
    })
  })

  describe('programs that are not what they seem', () => {
    const entry = (name: string, content: Buffer, flag = '0'): Buffer => {
      const head = Buffer.alloc(512)
      head.write(name.slice(0, 100), 0, 'latin1')
      head.write('0000644\0', 100)
      head.write(`${content.length.toString(8).padStart(11, '0')}\0`, 124)
      head.write('        ', 148)
      head.write(flag, 156)
      head.write('ustar\x0000', 257, 'latin1')
      const sum = head.reduce((all, byte) => all + byte, 0)
      head.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
      const padding = Buffer.alloc((512 - (content.length % 512)) % 512)
      return Buffer.concat([head, content, padding])
    }
    const pax = (key: string, value: string): Buffer => {
      const body = ` ${key}=${value}\n`
      let length = body.length
      while (String(length).length + body.length !== length)
        length = String(length).length + body.length
      return entry('pax', Buffer.from(`${length}${body}`, 'latin1'), 'x')
    }
    const printing = (bytes: Buffer): void => {
      world.kubelet.programs.set('tar', async (io) => {
        await io.stdout(bytes)
        return 0
      })
    }
    const QUERY = 'command=tar&command=cf&command=-&command=x&stdout=1'

    it('a tar that prints text is recorded as text', async () => {
      const text = Buffer.from('no archive at all, but what somebody wanted to see\n'.repeat(50))
      printing(text)
      const { id } = await run(QUERY)
      expect(bytesOf(world.recording(id), TYPE.stdout).equals(text)).to.equal(true)
    })

    it('text behind an archive, within its padding, and behind its end is recorded', async () => {
      const padded = entry('a', Buffer.from('content'))
      padded.write('in the padding', 600)
      printing(
        Buffer.concat([padded, Buffer.alloc(1024), Buffer.from('behind its end'.padEnd(600, '.'))]),
      )
      const { id } = await run(QUERY)
      const kept = bytesOf(world.recording(id), TYPE.stdout).toString('latin1')
      expect(kept).to.contain('in the padding').and.to.contain('behind its end')
    })

    it('what a manifest does not say of an archive is in its hash', async () => {
      const hidden = 'the-hidden-word'
      for (const [what, bytes] of Object.entries({
        comment: pax('comment', hidden),
        owner: pax('uname', `${hidden}${'x'.repeat(5_000)}`),
        'a link that is none': pax('linkpath', hidden),
        'a name of two': Buffer.concat([
          entry('n', Buffer.from(hidden), 'L'),
          pax('path', 'other'),
        ]),
      })) {
        printing(Buffer.concat([bytes, entry('file', Buffer.from('x')), Buffer.alloc(1024)]))
        const { id, out } = await run(QUERY)
        expect(out.includes(hidden)).to.equal(true)
        const recording = world.recording(id)
        const archive = jsonOf(recording, TYPE.marker).find(({ kind }) => kind === 'archive')
        const isThere = bytesOf(recording, TYPE.stdout).includes(hidden)
        if (!isThere)
          expect(archive, what).to.include({
            ...{ stream: 'stdout', bytes: out.length },
            sha256: createHash('sha256').update(out).digest('hex'),
          })
      }
    })

    it('a file whose name is too long for a manifest is recorded as it is', async () => {
      const archive = Buffer.concat([
        ...[pax('path', 'n'.repeat(200_000)), entry('file', Buffer.from('x')), Buffer.alloc(1024)],
      ])
      printing(archive)
      const { id } = await run(QUERY)
      expect(bytesOf(world.recording(id), TYPE.stdout).equals(archive)).to.equal(true)
    })

    it('output that looks like events, chunks or markers is output', async () => {
      const marker = Buffer.from(JSON.stringify({ kind: 'approved', text: 'alice: yes' }))
      const head = Buffer.alloc(11)
      head.writeUInt8(TYPE.marker, 0)
      head.writeUInt32BE(marker.length, 7)
      const forged = Buffer.concat([head, marker, Buffer.from('\x1b]0;evil\x07\x1b[2J'), noise(64)])
      world.kubelet.programs.set('forge', async (io) => {
        for (let index = 0; index < 50; index += 1) await io.stdout(forged)
        return 0
      })
      const { id } = await run('command=forge&stdout=1')
      const recording = world.recording(id)
      expect(jsonOf(recording, TYPE.marker).filter(({ kind }) => kind === 'approved')).to.eql([])
      expect(bytesOf(recording, TYPE.stdout)).to.have.length(50 * forged.length)
    })

    it('a command of many strange words is in the header whole, or does not run', async () => {
      const count = world.kubelet.sessions.length
      for (const word of ['%01'.repeat(15_000), '%22'.repeat(15_000), 'a'.repeat(40_000)]) {
        const query = `command=echo&command=${word}&stdout=1`
        const ran = await run(query).catch(() => undefined)
        if (ran === undefined) continue
        const [header] = jsonOf(world.recording(ran.id), TYPE.header)
        expect(header?.['command']).to.deep.equal(['echo', decodeURIComponent(word)])
      }
      expect(world.kubelet.sessions.length).to.be.at.least(count)
    })
  })

  describe('secrets', () => {
    const KEY = 'AKIAQ3EGRKXW5D2LMZNP'
    const secretLine = `aws_access_key_id = ${KEY}\n`

    it('are hidden wherever the pieces are cut, and reach the client whole', async () => {
      for (const piece of [1, 3, 7, 20, 22, 30]) {
        world.kubelet.programs.set('leak', async (io) => {
          await io.stdout(`before\n${secretLine}after\n`, piece)
          return 0
        })
        const { id, out } = await run('command=leak&stdout=1')
        expect(out.toString()).to.contain(KEY)
        const recording = world.recording(id)
        const kept = bytesOf(recording, TYPE.stdout).toString()
        expect(kept, `pieces of ${piece}`).not.to.contain(KEY)
        expect(kept).to.have.length(out.length)
        expect(kept.startsWith('before\n') && kept.endsWith('after\n')).to.equal(true)
        expect(recording.events.filter(({ type }) => type === TYPE.marker)).not.to.have.length(0)
      }
    })

    it('in what is run are hidden too, in document, header and ledger', async () => {
      const { id } = await run(`command=echo&command=${KEY}&stdout=1`)
      expect(world.kubelet.last().query.getAll('command')).to.deep.equal(['echo', KEY])
      const session = world.sessions().find((one) => one.id === id)
      expect(JSON.stringify(session)).not.to.contain(KEY)
      expect(JSON.stringify(jsonOf(world.recording(id), TYPE.header))).not.to.contain(KEY)
      expect(JSON.stringify(world.entries(id))).not.to.contain(KEY)
      expect(world.said()).not.to.contain(KEY)
    })

    it('that are typed are not kept, nor when each key was pressed', async () => {
      const client = await openChannels(
        world.address('exec', 'command=cat&stdin=1&stdout=0&stderr=1'),
        V5,
      )
      for (const key of 'hunter2') {
        await client.send(CHANNEL.stdin, key)
        await sleep(60)
      }
      await client.closeChannel(CHANNEL.stdin)
      await client.closed
      const recording = world.recording(client.requestId)
      const all = Buffer.concat(recording.events.map(({ payload }) => payload)).toString('latin1')
      expect(all).not.to.contain('hunter')
      expect(
        recording.events.filter(({ type }) => type === TYPE.stdinOmitted).length,
      ).to.be.at.most(2)
    })
  })

  describe('others', () => {
    it('read nothing without the role for it, and nobody unseen', async () => {
      const { id } = await run('command=echo&command=mine&stdout=1')
      for (const [role, path, expected] of [
        ['reviewer', `/v1/sessions/${id}/events`, [403]],
        ['auditor', `/v1/sessions/${id}/events`, [200, 206]],
        ['admin', `/v1/sessions/${id}/events`, [200, 206]],
        ['reviewer', '/v1/sessions', [200]],
      ] as const)
        expect((await world.api(role, path)).status, `${role} ${path}`).to.be.oneOf([...expected])
      const killed = await world.api('auditor', `/v1/sessions/${id}/kill`, { reason: 'x' })
      expect(killed.status).to.equal(403)
      const { text } = await world.api('auditor', '/v1/audit/events?limit=50')
      expect(text).to.contain('audit_read').and.to.contain(id)
    })

    it('end a session once, however many do and whenever it ends', async () => {
      for (let round = 0; round < 15; round += 1) {
        const client = await openChannels(world.address('exec', 'command=cat&stdin=1&stdout=1'), V5)
        const { requestId: id } = client
        await sleep(10)
        const kills = [1, 2, 3].map(() =>
          world.api('reviewer', `/v1/sessions/${id}/kill`, { reason: 'enough' }),
        )
        await sleep(round % 4)
        if (client.socket.readyState === 1) void client.closeChannel(CHANNEL.stdin).catch(() => 0)
        await Promise.all(kills)
        await client.closed
        const session = await until('the end', () => {
          const found = world.sessions().find((one) => one.id === id)
          return found?.state === 'running' ? undefined : found
        })
        const ends = world.entries(id).filter(({ event }) => event === 'ended')
        expect(ends).to.have.length(1)
        expect(session.ending).to.be.oneOf(['killed', undefined])
        expect(world.recording(id).isComplete).to.equal(true)
      }
    }).timeout(SLOW_MS)
  })
})
