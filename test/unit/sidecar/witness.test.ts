import { expect } from 'chai'
import { generateKeyPairSync } from 'node:crypto'
import { describe, it } from 'mocha'
import { createWitness } from '../../../sidecar/witness.ts'
import type { Witness } from '../../../sidecar/witness.ts'
import { encodeBase64 } from '../../../shared/transparency/base64.ts'
import { signCheckpoint } from '../../../shared/transparency/checkpoint.ts'
import { keySigner } from '../../../shared/transparency/note.ts'
import type { NoteSigner } from '../../../shared/transparency/note.ts'
import {
  appendHashes,
  EMPTY_RANGE,
  leafHash,
  makeConsistencyProof,
  rangeRoot,
} from '../../../shared/transparency/tree.ts'

const ORIGIN = 'ledger.test'
const signal = new AbortController().signal

/** Subtree hashes out of the leaves themselves. */
function hashOf(leaves: readonly Uint8Array[], level: number, index: number): Uint8Array {
  const part = leaves.slice(index * 2 ** level, (index + 1) * 2 ** level)
  return rangeRoot(appendHashes(EMPTY_RANGE, part))
}

/** A ledger that answers as the broker does. */
class Ledger {
  leaves: Uint8Array[] = []
  signers: readonly NoteSigner[] = [keySigner(ORIGIN, generateKeyPairSync('ed25519').privateKey)]
  origin = ORIGIN
  until: string | undefined
  asked: string[] = []
  broken: 'down' | 'status' | 'odd' | undefined
  readonly said: string[] = []
  /** Looks that came to nothing. */
  warned = 0

  grow(count: number, text = 'entry'): void {
    for (let i = 0; i < count; i += 1) {
      const bytes = Buffer.from(`${text} ${this.leaves.length}`)
      this.leaves.push(leafHash(bytes))
    }
  }

  witness(vkeys: readonly string[] = []): Witness {
    const log = (data: object): void => {
      this.said.push('problem' in data ? String(data.problem) : '')
    }
    const silent = (): void => undefined
    const warn = (): void => {
      this.warned += 1
    }
    return createWitness({
      connections: { ask: ({ path }) => this.#answer(path) },
      vkeys,
      log: { error: log, warn, info: silent } as never,
      behindMs: 1,
    })
  }

  async #answer(path: string): Promise<{ status: number; text: string }> {
    this.asked.push(path)
    if (this.broken === 'down') throw new Error('nobody is there')
    if (this.broken === 'status') return { status: 503, text: '' }
    if (path === '/v1/ledger/keys') {
      const keys = this.signers.map(({ vkey }) => ({ vkey, until: this.until }))
      return { status: 200, text: JSON.stringify({ origin: this.origin, keys }) }
    }
    if (this.broken === 'odd') return { status: 200, text: 'hello' }
    const from = Number(path.split('=')[1])
    const size = this.leaves.length
    if (from > size) return { status: 409, text: '' }
    const read = (level: number, index: number): Promise<Uint8Array> =>
      Promise.resolve(hashOf(this.leaves, level, index))
    const hashes = from === 0 ? [] : await makeConsistencyProof(from, size, read)
    const root = rangeRoot(appendHashes(EMPTY_RANGE, this.leaves))
    const note = await signCheckpoint({ origin: this.origin, size, root }, this.signers)
    return { status: 200, text: [`old ${from}`, ...hashes.map(encodeBase64), '', note].join('\n') }
  }
}

describe('the witness of a sidecar', () => {
  it('is content with a ledger that only grows', async () => {
    const ledger = new Ledger()
    const witness = ledger.witness()
    for (const count of [3, 0, 1, 300]) {
      ledger.grow(count)
      expect(await witness.look(signal)).to.equal(true)
      expect(witness.state()).to.deep.equal({ size: ledger.leaves.length, problem: undefined })
    }
    expect(ledger.said).to.deep.equal([])
  })

  const changes: readonly [string, (ledger: Ledger) => void, string][] = [
    ['became smaller', (ledger) => (ledger.leaves.length = 40), 'smaller than the 50'],
    [
      'was put back and grew on',
      (ledger) => {
        ledger.leaves.length = 40
        ledger.grow(30, 'other')
      },
      'does not begin with the 50',
    ],
    [
      'has another entry in the middle',
      (ledger) => (ledger.leaves[7] = leafHash(Buffer.from('forged'))),
      'does not begin with the 50',
    ],
    [
      'of the same size has another last entry',
      (ledger) => (ledger.leaves[49] = leafHash(Buffer.from('forged'))),
      'does not begin with the 50',
    ],
    [
      'is signed by another key',
      (ledger) => (ledger.signers = [keySigner(ORIGIN, generateKeyPairSync('ed25519').privateKey)]),
      'signed',
    ],
    ['has another name', (ledger) => (ledger.origin = 'other.test'), 'not of ledger.test'],
    ['answers what cannot be read', (ledger) => (ledger.broken = 'odd'), 'cannot be read'],
  ]
  for (const [what, change, problem] of changes) {
    it(`says aloud, again and again, that the ledger ${what}`, async () => {
      const ledger = new Ledger()
      ledger.grow(50)
      const witness = ledger.witness()
      await witness.look(signal)
      change(ledger)
      expect(await witness.look(signal)).to.equal(true)
      await witness.look(signal)
      expect(ledger.said).to.have.length(2)
      expect(ledger.said[0]).to.contain(problem)
      expect(witness.state()).to.have.property('size', 50)
      expect(witness.state().problem).to.contain(problem)
    })
  }

  it('keeps what it said when the ledger fits again', async () => {
    const ledger = new Ledger()
    ledger.grow(50)
    const witness = ledger.witness()
    await witness.look(signal)
    const all = [...ledger.leaves]
    ledger.leaves.length = 10
    await witness.look(signal)
    ledger.leaves = all
    ledger.grow(1)
    await witness.look(signal)
    expect(witness.state().size).to.equal(51)
    expect(witness.state().problem).to.contain('smaller')
  })

  it('waits for a broker that is a little behind another one', async () => {
    const ledger = new Ledger()
    ledger.grow(50)
    const witness = ledger.witness()
    await witness.look(signal)
    const all = [...ledger.leaves]
    ledger.leaves.length = 49
    const looking = witness.look(signal)
    ledger.leaves = all
    expect(await looking).to.equal(true)
    expect(ledger.said).to.deep.equal([])
  })

  it('raises no alarm for a broker that cannot be reached, and warns that it could not look', async () => {
    const ledger = new Ledger()
    const witness = ledger.witness()
    for (const broken of ['down', 'status'] as const) {
      ledger.broken = broken
      expect(await witness.look(signal)).to.equal(false)
    }
    ledger.broken = undefined
    ledger.grow(2)
    await witness.look(signal)
    for (const broken of ['down', 'status'] as const) {
      ledger.broken = broken
      expect(await witness.look(signal)).to.equal(false)
    }
    expect(witness.state()).to.deep.equal({ size: 2, problem: undefined })
    expect(ledger.said).to.deep.equal([])
    expect(ledger.warned).to.equal(4)
  })

  it('follows keys that change with an overlap, and not those that do not', async () => {
    const ledger = new Ledger()
    ledger.grow(2)
    const witness = ledger.witness()
    await witness.look(signal)
    const next = keySigner(ORIGIN, generateKeyPairSync('ed25519').privateKey)
    const old = ledger.signers
    ledger.signers = [...old, next]
    await witness.look(signal)
    ledger.signers = [next]
    ledger.grow(1)
    await witness.look(signal)
    expect(witness.state()).to.deep.equal({ size: 3, problem: undefined })
    const given = ledger.witness(old.map(({ vkey }) => vkey))
    ledger.signers = [...old, next]
    await given.look(signal)
    ledger.signers = [next]
    await given.look(signal)
    expect(given.state().problem).to.be.a('string')
  })

  it('believes no key that signs no more', async () => {
    const ledger = new Ledger()
    ledger.grow(2)
    ledger.until = '2026-01-01T00:00:00Z'
    const witness = ledger.witness()
    expect(await witness.look(signal)).to.equal(false)
    expect(witness.state().size).to.equal(0)
  })

  it('believes no other key than those that it was given', async () => {
    const ledger = new Ledger()
    ledger.grow(2)
    const other = keySigner(ORIGIN, generateKeyPairSync('ed25519').privateKey)
    const witness = ledger.witness([other.vkey])
    await witness.look(signal)
    expect(ledger.asked).to.deep.equal(['/v1/ledger/consistency?from=0'])
    expect(witness.state().problem).to.be.a('string')
    const content = ledger.witness([other.vkey, ...ledger.signers.map(({ vkey }) => vkey)])
    await content.look(signal)
    expect(content.state()).to.deep.equal({ size: 2, problem: undefined })
  })
})
