/** Copies of checkpoints: a folder, a bucket that checks signatures, and a witness that keeps to its specification. */
import { expect } from 'chai'
import { createHash, createHmac, generateKeyPairSync, sign } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { IncomingMessage, Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, it } from 'mocha'
import type { Checkpoints } from '../../broker/ledger/checkpoints.ts'
import { createMirror, mirrorSchema, startMirrors } from '../../broker/ledger/mirrors.ts'
import type { MirrorSettings } from '../../broker/ledger/mirrors.ts'
import type { Store } from '../../broker/store/store.ts'
import { decodeHash } from '../../shared/transparency/base64.ts'
import { verifyCheckpoint } from '../../shared/transparency/checkpoint.ts'
import {
  cosignedMessage,
  formatVkey,
  parseNote,
  parseVkey,
  rawPublicKey,
  signatureLine,
  TYPE_COSIGNATURE,
  verifyNote,
} from '../../shared/transparency/note.ts'
import { keyIdOf } from '../../shared/transparency/vkey.ts'
import { verifyConsistency } from '../../shared/transparency/tree.ts'
import { intent } from '../support/entries.ts'
import { newIdentity, ORIGIN, signed } from '../support/ledger.ts'
import { newFile, open, SILENT } from '../support/sqlite-store.ts'
import { faultOf } from './store-suite.ts'

const KEY_ID = 'AKIDEXAMPLE'
const SECRET = 'a-secret-of-the-test'
const REGION = 'eu-test-1'

interface Answer {
  readonly status: number
  readonly body: string
}

async function serve(
  handle: (request: IncomingMessage, body: string) => Answer,
): Promise<{ server: Server; url: string }> {
  const server = createServer((request, response) => {
    void text(request).then((body) => {
      const answer = handle(request, body)
      response.writeHead(answer.status).end(answer.body)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}

const hmac = (key: string | Buffer, value: string): Buffer =>
  createHmac('sha256', key).update(value).digest()
const sha256 = (value: string): string => createHash('sha256').update(value).digest('hex')

/** Signature Version 4 as its specification writes it, over what came. */
function isSigned(request: IncomingMessage, body: string): boolean {
  const { authorization = '' } = request.headers
  const [, date = '', names = '', signature] =
    /Credential=AKIDEXAMPLE\/(\d{8})\/eu-test-1\/s3\/aws4_request, SignedHeaders=([^,]+), Signature=(.+)$/.exec(
      authorization,
    ) ?? []
  const header = (name: string): string => String(request.headers[name])
  const hash = header('x-amz-content-sha256')
  if (hash !== 'UNSIGNED-PAYLOAD' && hash !== sha256(body)) return false
  const canonical = [
    ...[request.method, request.url, ''],
    ...names.split(';').map((name) => `${name}:${header(name)}`),
    ...['', names, hash],
  ].join('\n')
  const scope = `${date}/${REGION}/s3/aws4_request`
  const toSign = ['AWS4-HMAC-SHA256', header('x-amz-date'), scope, sha256(canonical)].join('\n')
  const key = hmac(hmac(hmac(hmac(`AWS4${SECRET}`, date), REGION), 's3'), 'aws4_request')
  return hmac(key, toSign).toString('hex') === signature
}

describe('mirrors of checkpoints', () => {
  let folder: string
  let store: Store
  let remove: () => void
  let checkpoints: Checkpoints
  let server: Server | undefined
  const identity = newIdentity()
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'nestgate-mirror-'))
    const file = newFile()
    remove = file.remove
    store = await open(file.file)
    checkpoints = await signed(store, identity)
    server = undefined
  })
  afterEach(async () => {
    server?.close()
    server?.closeAllConnections()
    await store.close()
    remove()
    rmSync(folder, { recursive: true, force: true })
  })
  const grow = async (count: number) => {
    await store.append(Array.from({ length: count }, () => intent()))
    return checkpoints.current()
  }
  const mirror = (settings: unknown, cosigned = new Map<string, string>()) =>
    createMirror(mirrorSchema.parse(settings), checkpoints, cosigned)

  it('keep each checkpoint in a folder, once, and tell of another history', async () => {
    const { put } = mirror({ directory: folder })
    const first = await grow(3)
    await put(first)
    await put(first)
    await put(await grow(300))
    expect(readdirSync(folder).sort()).to.deep.equal([
      '0000000000000003.checkpoint',
      '0000000000000303.checkpoint',
    ])
    expect(readFileSync(join(folder, '0000000000000003.checkpoint'), 'utf8')).to.equal(first.note)
    const forked = { ...first, note: first.note.replace(/\n3\n.{4}/, '\n3\nAAAA') }
    expect(await faultOf(put(forked))).to.have.property('code', 'ledger_rolled_back')
    rmSync(folder, { recursive: true })
    expect(await faultOf(put(await grow(1)))).to.be.instanceOf(Error)
  })

  it('put each into a bucket under its size, signed, and never over one that is there', async () => {
    const objects = new Map<string, string>()
    const refusedAll: string[] = []
    const bucket = await serve((request, body) => {
      if (!isSigned(request, body)) return { status: 403, body: 'SignatureDoesNotMatch' }
      const name = request.url ?? ''
      if (request.method === 'GET') return { status: 200, body: objects.get(name) ?? '' }
      if (request.headers['if-none-match'] === '*' && objects.has(name)) {
        refusedAll.push(name)
        return { status: 412, body: '' }
      }
      objects.set(name, body)
      return { status: 200, body: '' }
    })
    ;({ server } = bucket)
    const keyFile = join(folder, 'key')
    writeFileSync(keyFile, `${KEY_ID}\n${SECRET}\n`, { mode: 0o600 })
    const s3 = { url: `${bucket.url}/evidence`, prefix: 'ledger/', region: REGION, keyFile }
    const { put, close } = mirror({ s3 })
    const checkpoint = await grow(3)
    await put(checkpoint)
    await put(checkpoint)
    expect([...objects]).to.deep.equal([
      ['/evidence/ledger/0000000000000003.checkpoint', checkpoint.note],
    ])
    expect(refusedAll).to.have.length(1)
    const forked = { ...checkpoint, note: checkpoint.note.replace(/\n3\n.{4}/, '\n3\nAAAA') }
    expect(await faultOf(put(forked))).to.have.property('code', 'ledger_rolled_back')
    writeFileSync(keyFile, `${KEY_ID}\nanother\n`)
    const fault = await faultOf(put(await grow(1)))
    expect(fault).to.have.property('code', 'mirror_failed')
    expect(String(fault)).to.contain('403').and.not.to.contain('another')
    await close()
  })

  /** A witness by C2SP tlog-witness: signs what goes on from what it signed. */
  async function witness(change: { forged?: boolean; known?: () => void } = {}) {
    const { privateKey, publicKey } = generateKeyPairSync('ed25519')
    const raw = rawPublicKey(publicKey)
    const name = 'witness.test/w1'
    const vkey = formatVkey(name, raw, TYPE_COSIGNATURE)
    const logKeys = identity.signers.map((signer) => {
      const parsed = parseVkey(signer.vkey)
      if (parsed.problem !== undefined) throw new Error(parsed.problem)
      return parsed.value
    })
    const state = { size: 0, root: new Uint8Array(), asked: 0 }
    const served = await serve((request, body) => {
      state.asked += 1
      if (request.url !== '/w/add-checkpoint') return { status: 404, body: '' }
      const end = body.indexOf('\n\n')
      const [first = '', ...lines] = body.slice(0, end).split('\n')
      const note = body.slice(end + 2)
      const verified = verifyCheckpoint(note, logKeys, ORIGIN)
      if (verified.problem !== undefined) return { status: 403, body: verified.problem }
      if (Number(first.replace('old ', '')) !== state.size)
        return { status: 409, body: `${state.size}\n` }
      const { size, root } = verified.value
      const proof = lines.map((line) => decodeHash(line) ?? new Uint8Array())
      const goesOn =
        state.size === 0 || verifyConsistency(state.size, size, proof, state.root, root)
      if (!goesOn) return { status: 422, body: '' }
      Object.assign(state, { size, root })
      const parsed = parseNote(note)
      if (parsed.problem !== undefined) throw new Error(parsed.problem)
      const seconds = Math.floor(Date.now() / 1000)
      const time = Buffer.alloc(8)
      time.writeBigUInt64BE(BigInt(seconds))
      const over = change.forged === true ? 'something else\n' : parsed.value.text
      const signature = sign(null, cosignedMessage(Buffer.from(over), seconds), privateKey)
      const id = keyIdOf(name, raw, TYPE_COSIGNATURE)
      return { status: 200, body: signatureLine(name, Buffer.concat([id, time, signature])) }
    })
    ;({ server } = served)
    return { settings: { witness: { url: `${served.url}/w`, vkey } }, vkey, state }
  }

  it('have a witness sign what goes on from what it signed', async () => {
    const { settings, vkey, state } = await witness()
    const cosigned = new Map<string, string>()
    const { put, close } = mirror(settings, cosigned)
    await put(await grow(3))
    await put(await grow(300))
    expect([state.size, state.asked]).to.deep.equal([303, 2])
    const key = parseVkey(vkey)
    if (key.problem !== undefined) throw new Error(key.problem)
    const verified = verifyNote(cosigned.get(vkey) ?? '', [key.value])
    expect(verified.problem).to.equal(undefined)
    // a broker that was started anew does not know what the witness has
    const again = mirror(settings, cosigned)
    await again.put(await grow(5))
    expect([state.size, state.asked]).to.deep.equal([308, 4])
    await close()
    await again.close()
  })

  it('tell of a witness that knows a larger ledger, and believe no signature over something else', async () => {
    const { settings, state } = await witness()
    const { put, close } = mirror(settings)
    const old = await grow(3)
    await put(await grow(10))
    const later = mirror(settings)
    expect(await faultOf(later.put(old))).to.have.property('code', 'ledger_rolled_back')
    expect(state.size).to.equal(13)
    await close()
    await later.close()
    server?.close()
    const forging = await witness({ forged: true })
    const cosigned = new Map<string, string>()
    const third = mirror(forging.settings, cosigned)
    expect(await faultOf(third.put(await grow(1)))).to.have.property('code', 'mirror_failed')
    expect(cosigned.size).to.equal(0)
    await third.close()
  })

  it('get what another broker wrote, too: a witness that has it would think the ledger put back', async () => {
    const other = await signed(store, identity)
    const { size } = await grow(50)
    expect(other.published().size).to.be.lessThan(size)
    const to = [mirrorSchema.parse({ directory: folder })]
    const mirrors = startMirrors({ everySeconds: 3600, to }, other, SILENT)
    while (readdirSync(folder).length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    expect(readdirSync(folder)).to.deep.equal([`${String(size).padStart(16, '0')}.checkpoint`])
    await mirrors.close()
  })

  it('are tried again with the next checkpoint, and hold up nobody', async () => {
    const settings: MirrorSettings[] = [
      { directory: join(folder, 'missing') },
      { directory: folder },
    ]
    await grow(1)
    const mirrors = startMirrors({ everySeconds: 1, to: settings }, checkpoints, SILENT)
    const copies = (): number =>
      readdirSync(folder).filter((name) => name.endsWith('.checkpoint')).length
    while (copies() < 1) await new Promise((resolve) => setTimeout(resolve, 10))
    await grow(1)
    while (copies() < 2) await new Promise((resolve) => setTimeout(resolve, 10))
    await mirrors.close()
  })

  for (const [what, settings] of [
    [
      'a key of a ledger as a witness',
      { witness: { url: 'https://w', vkey: identity.signers[0]!.vkey } },
    ],
    ['two places in one', { directory: '/x', s3: {} }],
    ['nothing', {}],
  ] as const) {
    it(`are not configured with ${what}`, () => {
      expect(mirrorSchema.safeParse(settings).success).to.equal(false)
    })
  }
})
