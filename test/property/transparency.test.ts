/** What must hold for a tree of any size: what is proved verifies, and with one bit changed it does not. */
import fc from 'fast-check'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { parseTilePath, tilePath } from '../../shared/transparency/tiles.ts'
import {
  makeConsistencyProof,
  makeInclusionProof,
  rangeRoot,
  readRange,
  sameHash,
  verifyConsistency,
  verifyInclusion,
} from '../../shared/transparency/tree.ts'
import { testLedger } from '../support/ledger-tree.ts'

const LARGEST = 2000
const ledger = testLedger(LARGEST)

const rootOf = (size: number): Uint8Array => ledger.rootAt(size)

/** All of the hashes, with one bit of one of them flipped. */
function flip(hashes: readonly Uint8Array[], bit: number): Uint8Array[] {
  const copies = hashes.map((hash) => Uint8Array.from(hash))
  const at = bit % (copies.length * 256)
  copies[Math.floor(at / 256)]![Math.floor(at / 8) % 32]! ^= 1 << (at % 8)
  return copies
}

describe('transparency, for any tree', () => {
  const pair = fc
    .tuple(fc.integer({ min: 1, max: LARGEST }), fc.nat(), fc.nat())
    .map(([size, position, bit]) => ({ size, at: position % size, bit }))

  it('proves each entry from the tiles, and nothing with a bit flipped', async () => {
    await fc.assert(
      fc.asyncProperty(pair, async ({ size, at, bit }) => {
        const read = ledger.reader(size)
        const root = rootOf(size)
        expect(sameHash(rangeRoot(await readRange(size, read)), root)).to.equal(true)
        const proof = await makeInclusionProof(at, size, read)
        const leaf = ledger.hashes[at]!
        expect(verifyInclusion(at, size, leaf, proof, root)).to.equal(true)
        const [otherLeaf, otherRoot, ...otherProof] = flip([leaf, root, ...proof], bit)
        expect(verifyInclusion(at, size, otherLeaf!, otherProof, otherRoot!)).to.equal(false)
      }),
      { numRuns: 300 },
    )
  })

  it('proves each growth from the tiles, and nothing with a bit flipped', async () => {
    await fc.assert(
      fc.asyncProperty(pair, async ({ size, at, bit }) => {
        const old = at + 1
        const proof = await makeConsistencyProof(old, size, ledger.reader(size))
        const [before, after] = [rootOf(old), rootOf(size)]
        expect(verifyConsistency(old, size, proof, before, after)).to.equal(true)
        const [otherBefore, otherAfter, ...otherProof] = flip([before, after, ...proof], bit)
        expect(verifyConsistency(old, size, otherProof, otherBefore!, otherAfter!)).to.equal(false)
      }),
      { numRuns: 300 },
    )
  })

  it('names each tile by one path, and reads nothing into any other text', () => {
    const tile = fc.record({
      level: fc.integer({ min: 0, max: 63 }),
      index: fc.maxSafeNat(),
      width: fc.integer({ min: 1, max: 256 }),
    })
    fc.assert(
      fc.property(tile, (named) => {
        expect(parseTilePath(tilePath(named))).to.deep.equal({ kind: 'tile', ...named })
      }),
    )
    const piece = fc.constantFrom('tile', '/', '0', '1', '000', 'x001', '.p', '255', 'entries', '-')
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 9 }), (pieces) => {
        const path = pieces.join('')
        const named = parseTilePath(path)
        if (named?.kind === 'tile') expect(tilePath(named)).to.equal(path)
      }),
    )
  })
})
