/** Output that is made to cost the detectors time or memory, or to slip through them, through a real broker. */
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { after, afterEach, before, describe, it } from 'mocha'
import { CHANNEL, openChannels } from '../support/remote-clients.ts'
import { bytesOf, TYPE } from '../support/remote-recording.ts'
import { startSessionWorld } from '../support/session-world.ts'
import type { SessionWorld } from '../support/session-world.ts'

const SLOW_MS = 120_000
const V5 = 'v5.channel.k8s.io'
const MIB = 1024 * 1024
const SIZE = 16 * MIB
/** Longest time for SIZE bytes, in milliseconds: a detector that is not linear takes minutes. */
const LIMIT_MS = 25_000
const KEY = 'AKIAQ3EGRKXW5D2LMZNP'

const FLOODS: Readonly<Record<string, readonly [string, string]>> = {
  'a private key without an end': [
    '-----BEGIN RSA PRIVATE KEY-----\n',
    `${'MIIEpAIBAAKCAQEA'.repeat(4)}\n`,
  ],
  'one line without an end': ['', 'a'],
  'a password without an end': ['{"password":"', 'x'],
  'keywords alone': ['', 'password=secret token:apikey AKIA ghp_ xox '],
  'beginnings of keys': ['', 'AKIA'],
  'beginnings of tokens': ['', 'eyJ'],
  blanks: ['password', ' '],
  'bytes that are no text': ['', '\u0000\u00ff'],
}

describe('masking of what sessions print', () => {
  let world: SessionWorld

  before(async function () {
    this.timeout(SLOW_MS)
    world = await startSessionWorld()
  })
  after(async function () {
    this.timeout(SLOW_MS)
    await world.close()
  })
  afterEach(() => {
    world.kubelet.keep = true
    for (const socket of world.kubelet.sockets) socket.destroy()
  })

  for (const [what, [first, again]] of Object.entries(FLOODS))
    it(`${what}: all goes through, in time and in bounded memory`, async () => {
      const piece = Buffer.from(again.repeat(Math.ceil(32_768 / again.length)))
      world.kubelet.keep = false
      world.kubelet.programs.set('flood', async (io) => {
        await io.stdout(first)
        for (let sent = 0; sent < SIZE; sent += piece.length) await io.stdout(piece)
        return 0
      })
      const before_ = world.rss()
      const startMs = performance.now()
      const client = await openChannels(world.address('exec', 'command=flood&stdout=1'), V5, false)
      let seen = 0
      client.onMessage = (channel, bytes) => {
        if (channel === CHANNEL.stdout) seen += bytes.length
      }
      await client.closed
      const tookMs = performance.now() - startMs
      expect(seen).to.equal(world.kubelet.last().sent.stdout.bytes)
      expect(tookMs).to.be.lessThan(LIMIT_MS)
      expect(world.rss() - before_).to.be.lessThan(160 * MIB)
      const recording = world.recording(client.requestId)
      expect(recording.isComplete).to.equal(true)
      expect(bytesOf(recording, TYPE.stdout).length).to.equal(seen)
    }).timeout(SLOW_MS)

  it('a secret behind a long line, behind colours, and in both streams is hidden', async () => {
    world.kubelet.programs.set('leak', async (io) => {
      await io.stdout(`${'x'.repeat(300_000)}\nkey: ${KEY}\n`)
      await io.stderr(`\x1b[31mAWS_ACCESS_KEY_ID=${KEY}\x1b[0m\n`)
      await io.stdout(`no line end ${KEY}`)
      return 0
    })
    const client = await openChannels(world.address('exec', 'command=leak&stdout=1&stderr=1'), V5)
    await client.closed
    const recording = world.recording(client.requestId)
    for (const type of [TYPE.stdout, TYPE.stderr])
      expect(bytesOf(recording, type).includes(KEY), `type ${type}`).to.equal(false)
    expect(client.bytes(CHANNEL.stdout).includes(KEY)).to.equal(true)
  })

  it('a secret that comes slowly is hidden as long as nothing else has to be written', async () => {
    world.kubelet.programs.set('slow', async (io) => {
      await io.stdout(`id = ${KEY.slice(0, 10)}`)
      await sleep(400)
      await io.stdout(`${KEY.slice(10)}\n`)
      return 0
    })
    const client = await openChannels(world.address('exec', 'command=slow&stdout=1'), V5)
    await client.closed
    expect(bytesOf(world.recording(client.requestId), TYPE.stdout).includes(KEY)).to.equal(false)
  })
})
