/** Chunks and their running hash, as docs/decisions/0009 says. */
import { expect } from 'chai'
import { createDecipheriv, createHash } from 'node:crypto'
import { describe, it } from 'mocha'
import { openChunk, sealChunk } from '../../../broker/sessions/recordings/seal.ts'
import { bucketSchema, sessionsSchema } from '../../../broker/sessions/recordings/settings.ts'
import {
  CHUNK_LAST,
  ChunkReader,
  firstHash,
  followChain,
  MAX_CHUNK_BYTES,
} from '../../../shared/recording/chain.ts'
import type { Chunk } from '../../../shared/recording/chain.ts'

const ID = '01890a5d-ac96-774b-bcce-b302099a8057'
const KEY = Buffer.alloc(32, 7)

const seal = (index: number, text: string, flags = 0): Buffer => {
  const { header, ciphertext, tag } = sealChunk(
    KEY,
    Buffer.from(ID),
    { index, flags },
    Buffer.from(text),
  )
  return Buffer.concat([header, ciphertext, tag])
}
async function* inPieces(bytes: Buffer, size: number) {
  for (let at = 0; at < bytes.length; at += size)
    yield await Promise.resolve(bytes.subarray(at, at + size))
}
const sha256 = (...parts: Uint8Array[]): Buffer =>
  parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest()

describe('a recording’s chunks', () => {
  it('are sealed as the format says, step by step', () => {
    const chunk = seal(258, 'hello', CHUNK_LAST)
    expect(chunk.subarray(0, 9)).to.deep.equal(Buffer.of(0, 0, 0, 21, 0, 0, 1, 2, 1))
    const nonce = Buffer.from([...Array<number>(8).fill(0), 0, 0, 1, 2])
    const cipher = createDecipheriv('aes-256-gcm', KEY, nonce)
    cipher.setAAD(Buffer.concat([Buffer.from(ID), chunk.subarray(0, 9)]))
    cipher.setAuthTag(chunk.subarray(-16))
    expect(cipher.update(chunk.subarray(9, -16)).toString() + cipher.final().toString()).to.equal(
      'hello',
    )
  })

  it('make the running hash that the format says', async () => {
    const [one, two] = [seal(0, 'one'), seal(1, '', CHUNK_LAST)]
    const zero = sha256(Buffer.from('nestgate-recording-v1\0'), Buffer.from(ID))
    expect(firstHash(ID)).to.deep.equal(zero)
    const first = sha256(zero, one)
    const states: string[] = []
    const whole = await followChain(
      ID,
      inPieces(Buffer.concat([one, two]), 5),
      ({ runningSha256 }) => states.push(runningSha256),
    )
    const last = sha256(first, two).toString('hex')
    expect(states).to.deep.equal([first.toString('hex'), last])
    expect(whole).to.deep.equal({ chunks: 2, bytes: 3, runningSha256: last, isComplete: true })
  })

  it('are read from pieces of any size', () => {
    const texts = ['', 'a', 'x'.repeat(1000), 'y'.repeat(70_000)]
    const bytes = Buffer.concat(texts.map((text, index) => seal(index, text)))
    for (const size of [1, 2, 9, 10, 25, 1000, 70_000, bytes.length]) {
      const reader = new ChunkReader()
      const found: string[] = []
      for (let at = 0; at < bytes.length; at += size)
        for (const chunk of reader.take(bytes.subarray(at, at + size)))
          found.push(
            openChunk(KEY, Buffer.from(ID), { ...chunk, body: Buffer.from(chunk.body) }).toString(),
          )
      expect(found, String(size)).to.deep.equal(texts)
      expect([reader.end(), reader.next, reader.isOver]).to.deep.equal([undefined, 4, false])
    }
  })

  for (const [what, bytes, problem] of [
    [
      'in another order',
      Buffer.concat([seal(0, 'a'), seal(2, 'c')]),
      /chunk 2 stands where chunk 1/,
    ],
    [
      'behind the last',
      Buffer.concat([seal(0, 'a', CHUNK_LAST), seal(1, 'b')]),
      /follows the last/,
    ],
    ['with flags that nobody gave', seal(0, 'a', 2), /flags/],
    ['too short for a tag', Buffer.from([0, 0, 0, 15, 0, 0, 0, 0, 0, 1]), /length/],
    ['too long', Buffer.from([0, 4, 0, 17, 0, 0, 0, 0, 0, 1]), /length/],
    ['that are torn', seal(0, 'abc').subarray(0, -1), /ends within/],
    ['whose header is torn', seal(0, 'abc').subarray(0, 8), /ends within/],
  ] as const) {
    it(`are not taken ${what}`, async () => {
      const found = await followChain(ID, inPieces(bytes, 7))
      expect(found).to.have.property('problem').that.matches(problem)
    })
  }

  it('of the largest size are taken', async () => {
    const bytes = seal(0, 'x'.repeat(MAX_CHUNK_BYTES))
    expect(await followChain(ID, inPieces(bytes, 65_536))).to.include({
      bytes: MAX_CHUNK_BYTES,
      chunks: 1,
    })
  })

  it('open only as what they are: of this session, at this place, with these flags', () => {
    const [chunk] = [...new ChunkReader().take(seal(0, 'hello'))]
    const opened = (change: Partial<Chunk>, id = ID, key = KEY): string =>
      openChunk(key, Buffer.from(id), { ...chunk!, ...change }).toString()
    expect(opened({})).to.equal('hello')
    const header = Buffer.from(chunk!.header)
    header[8] = CHUNK_LAST
    for (const change of [
      () => opened({ index: 1 }),
      () => opened({ header }),
      () => opened({}, ID.replace('0', '1')),
      () => opened({}, ID, Buffer.alloc(32, 8)),
      () => opened({ body: Buffer.concat([Buffer.of(0), chunk!.body]) }),
    ])
      expect(change).to.throw().with.property('code', 'recording_corrupt')
  })
})

describe('settings of sessions', () => {
  it('are a spool in the broker’s folder, and nothing else, where nothing is said', () => {
    const { spool, ...rest } = sessionsSchema.parse({})
    expect(spool).to.deep.equal({ maxBytes: 10 * 1024 ** 3, minFreeBytes: 512 * 1024 ** 2 })
    expect(rest).to.deep.equal({})
  })

  for (const [what, settings] of [
    ['two archives', { archive: { directory: '/x', s3: {} } }],
    ['no archive', { archive: {} }],
    ['two places for keys', { keys: { dir: '/x', vault: {} } }],
    ['a tiny spool', { spool: { maxBytes: 1000 } }],
    ['no days', { retainDays: 0 }],
    ['a word that there is not', { retain: 3 }],
  ] as const) {
    it(`are not ${what}`, () => {
      expect(sessionsSchema.safeParse(settings).success).to.equal(false)
    })
  }

  it('of a bucket have a URL', () => {
    expect(bucketSchema.safeParse({ url: 'ftp://x', keyFile: 'k' }).success).to.equal(false)
    expect(bucketSchema.parse({ url: 'https://x/y', keyFile: 'k' })).to.include({
      prefix: '',
      region: 'us-east-1',
    })
  })
})
