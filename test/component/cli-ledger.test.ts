/** `nestgate proof` and `nestgate checkpoint` over HTTP, and `nestgate verify` over what they wrote. */
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { runCli } from '../../cli/program.ts'
import { signCheckpoint } from '../../shared/transparency/checkpoint.ts'
import { formatProof } from '../../shared/transparency/proof-file.ts'
import { makeInclusionProof } from '../../shared/transparency/tree.ts'
import { testLedger, testWitness } from '../support/ledger-tree.ts'

const SIZE = 300
const SEQ = 217

describe('the ledger’s proofs at the command line', () => {
  const ledger = testLedger(SIZE)
  const answers = new Map<string, { type: string; body: string }>()
  const asked: string[] = []
  let server: Server
  let folder: string
  let proof: string

  async function cli(
    ...args: readonly string[]
  ): Promise<{ code: number; out: string; err: string }> {
    const { port } = server.address() as AddressInfo
    let [out, err] = ['', '']
    const code = await runCli({
      args,
      env: { NESTGATE_BROKER_URL: `http://127.0.0.1:${port}`, NESTGATE_TOKEN: 'token-erin' },
      now: Date.now,
      out: (text) => (out += text),
      err: (text) => (err += text),
    })
    return { code, out, err }
  }

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'nestgate-cli-ledger-'))
    const hashes = await makeInclusionProof(SEQ, SIZE, ledger.reader(SIZE))
    const checkpoint = await ledger.checkpoint(SIZE)
    proof = formatProof({ index: SEQ, hashes, checkpoint, extra: ledger.leaves[SEQ]! })
    answers.set(`/v1/ledger/proof/${SEQ}`, { type: 'text/plain', body: proof })
    answers.set('/v1/ledger/proof/3', { type: 'text/plain', body: proof })
    answers.set('/v1/ledger/proof/4', { type: 'text/html', body: '<html>\n\n</html>' })
    const hostile = proof.replace(ledger.origin, `${ledger.origin}\u202e`)
    answers.set('/v1/ledger/proof/5', {
      type: 'text/plain',
      body: hostile.replace(`index ${SEQ}`, 'index 5'),
    })
    answers.set('/v1/ledger/checkpoint', { type: 'text/plain', body: checkpoint })
    server = createServer(({ url = '', headers }, response) => {
      asked.push(`${headers.accept ?? ''} ${headers.authorization ?? ''}`)
      const { type, body } = answers.get(url) ?? {
        type: 'application/problem+json',
        body: '{"title":"there is nothing at this address","code":"path_unknown"}',
      }
      response.writeHead(answers.has(url) ? 200 : 404, { 'content-type': type }).end(body)
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
  })
  after(() => {
    server.close()
    rmSync(folder, { recursive: true })
  })

  it('fetches a proof as it stands, and verifies it offline', async () => {
    expect(await cli('proof', String(SEQ))).to.deep.equal({ code: 0, out: proof, err: '' })
    expect(asked.at(-1)).to.equal('text/plain Bearer token-erin')
    const file = join(folder, 'entry.tlog-proof')
    expect((await cli('proof', String(SEQ), '--out', file)).code).to.equal(0)
    expect(readFileSync(file, 'utf8')).to.equal(proof)
    const { code, out } = await cli('verify', '--vkey', ledger.signer.vkey, file)
    expect(out).to.contain(`entry ${SEQ} is in the ledger ${ledger.origin} of size ${SIZE}`)
    expect(code).to.equal(0)
    const other = await cli('verify', '--vkey', testLedger(1).signer.vkey, file)
    expect(other.out).to.contain('NOT VERIFIED: ')
    expect(other.code).to.equal(1)
    const json = await cli('--output', 'json', 'proof', String(SEQ))
    expect(JSON.parse(json.out)).to.deep.equal({ seq: SEQ, proof })
  })

  it('prints and writes nothing that is not the proof that was asked for', async () => {
    for (const seq of [3, 4, 5]) {
      const { code, out, err } = await cli('proof', String(seq))
      expect({ code, out }).to.deep.equal({ code: 1, out: '' })
      expect(err).to.contain('not what was expected')
    }
    expect((await cli('proof', '6')).err).to.contain('path_unknown')
    expect((await cli('proof', '007')).code).to.equal(2)
    expect((await cli('proof', '-1')).code).to.equal(2)
  })

  it('fetches the checkpoint, and verifies it by a policy', async () => {
    const file = join(folder, 'checkpoint')
    expect((await cli('checkpoint', '--out', file)).code).to.equal(0)
    expect((await cli('checkpoint')).out).to.equal(readFileSync(file, 'utf8'))
    const json = await cli('--output', 'json', 'checkpoint')
    expect(JSON.parse(json.out)).to.include({ origin: ledger.origin, size: SIZE })
    const witness = testWitness('witness.example/w')
    const policy = join(folder, 'policy')
    const lines = [`log ${ledger.signer.vkey}`, `witness W ${witness.vkey}`]
    writeFileSync(policy, [...lines, 'quorum none', ''].join('\n'))
    expect((await cli('verify', '--policy', policy, file)).code).to.equal(0)
    writeFileSync(policy, [...lines, 'quorum W', ''].join('\n'))
    expect((await cli('verify', '--policy', policy, file)).out).to.contain('enough witnesses')
    const note = readFileSync(file, 'utf8')
    const text = note.slice(0, note.indexOf('\n\n') + 1)
    writeFileSync(file, note + witness.cosign(text, 1_700_000_000))
    expect((await cli('verify', '--policy', policy, file)).code).to.equal(0)
    writeFileSync(policy, lines.join('\n'))
    const unread = await cli('verify', '--policy', policy, file)
    expect(unread.err).to.contain('no quorum line')
    expect(unread.code).to.equal(2)
  })

  it('finds two histories under one key, and a key that speaks for another ledger', async () => {
    const { origin, signer, rootAt } = ledger
    const write = async (name: string, of: string, root: Uint8Array): Promise<string> => {
      const file = join(folder, name)
      writeFileSync(file, await signCheckpoint({ origin: of, size: 250, root }, [signer]))
      return file
    }
    const one = await write('one', origin, rootAt(250))
    const fork = await write('fork', origin, rootAt(249))
    const key = ['--vkey', signer.vkey]
    expect((await cli('verify', ...key, one, one)).code).to.equal(0)
    const forked = await cli('verify', ...key, one, fork)
    expect(forked.out).to.contain('NOT VERIFIED: it does not go on from one: not one ledger')
    expect(forked.code).to.equal(1)
    const crossed = await cli('verify', ...key, await write('x', 'other.example', rootAt(250)))
    expect(crossed.out).to.contain('of other.example, whose key is not trusted')
    expect(crossed.code).to.equal(1)
    const missing = await cli('verify', ...key, join(folder, 'nowhere'))
    expect(missing.err).to.contain('cannot read a file')
    expect(missing.code).to.equal(2)
  })
})
