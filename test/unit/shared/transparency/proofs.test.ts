import { createHash } from 'node:crypto'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { tileHashReader, tilePath, parseTilePath } from '../../../../shared/transparency/tiles.ts'
import {
  appendHashes,
  decodeRange,
  EMPTY_RANGE,
  EMPTY_ROOT,
  encodeRange,
  leafHash,
  makeConsistencyProof,
  makeInclusionProof,
  rangeRoot,
  readRange,
  verifyConsistency,
  verifyInclusion,
} from '../../../../shared/transparency/tree.ts'
import { tilesOf, transparencyVectors } from '../../../support/ledger-tree.ts'

interface Merkle {
  leaves: string[]
  roots: string[]
  inclusion: { index: number; size: number; proof: string[] }[]
  consistency: { old: number; new: number; proof: string[] }[]
}
interface Sumdb {
  inclusion: { index: number; size: number; root: string; proof: string[] }[]
  consistency: { old: number; new: number; oldRoot: string; newRoot: string; proof: string[] }[]
  paths: { level: number; index: number; width: number; path: string }[]
  tiles: { level: number; index: number; width: number; sha256: string }[]
}

const merkle = transparencyVectors('merkle.json') as Merkle
const sumdb = transparencyVectors('sumdb.json') as Sumdb
const hex = (text: string): Uint8Array => Buffer.from(text, 'hex')
const base64 = (text: string): Uint8Array => Buffer.from(text, 'base64')
const roots = merkle.roots.map(hex)
const someHash = hex('abacaba000000000000000000000000000000000000000000060061e00123456')
const garbage = new Uint8Array()
const wrong = Buffer.from('WrongLeaf')

type Hashes = readonly Uint8Array[]
type Inclusion = [index: number, size: number, leaf: Uint8Array, proof: Hashes, root: Uint8Array]
type Consistency = [
  old: number,
  size: number,
  proof: Hashes,
  oldRoot: Uint8Array,
  newRoot: Uint8Array,
]

function flipped(proof: Hashes, bit: number): Hashes[] {
  return proof.map((_, at) =>
    proof.map((hash, i) => (i === at ? Uint8Array.of(hash[0]! ^ bit, ...hash.slice(1)) : hash)),
  )
}

/** The changes from which transparency-dev/merkle makes its testdata/inclusion. */
function spoiledInclusion([index, size, leaf, proof, root]: Inclusion): Inclusion[] {
  const proofs: Hashes[] = [
    [...proof, garbage],
    [...proof, root],
    [garbage, ...proof],
    [root, ...proof],
    ...flipped(proof, 8),
    ...(proof.length > 0 ? [proof.slice(0, -1)] : []),
    ...(proof.length > 1 ? [[proof[0]!, someHash, ...proof.slice(1)]] : []),
  ]
  return [
    [index - 1, size, leaf, proof, root],
    [index + 1, size, leaf, proof, root],
    [index ^ 2, size, leaf, proof, root],
    [index, size * 2, leaf, proof, root],
    [index, Math.floor(size / 2), leaf, proof, root],
    [index, size, wrong, proof, root],
    [index, size, leaf, proof, EMPTY_ROOT],
    [index, size, leaf, proof, someHash],
    ...proofs.map((other): Inclusion => [index, size, leaf, other, root]),
  ]
}

/** The same for its testdata/consistency. */
function spoiledConsistency([old, size, proof, oldRoot, newRoot]: Consistency): Consistency[] {
  const proofs: Hashes[] = [
    [],
    [...proof, garbage],
    [...proof, oldRoot],
    [...proof, newRoot],
    [garbage, ...proof],
    [oldRoot, ...proof],
    [newRoot, ...proof],
    [proof[0]!, ...proof],
    proof.slice(0, -1),
    ...flipped(proof, 16),
  ]
  return [
    [old - 1, size, proof, oldRoot, newRoot],
    [old + 1, size, proof, oldRoot, newRoot],
    [old ^ 2, size, proof, oldRoot, newRoot],
    [old, size * 2, proof, oldRoot, newRoot],
    [old, Math.floor(size / 2), proof, oldRoot, newRoot],
    [old, size, proof, wrong, newRoot],
    [old, size, proof, oldRoot, wrong],
    [old, size, proof, newRoot, oldRoot],
    ...proofs.map((other): Consistency => [old, size, other, oldRoot, newRoot]),
  ]
}

describe('the tree', () => {
  const leaves = merkle.leaves.map((leaf) => leafHash(hex(leaf)))
  const big = Array.from({ length: 70_000 }, (_, i) => leafHash(Buffer.from(`entry ${i}`)))
  const tiles = tilesOf(big)

  it('has the published roots at each size', () => {
    expect(rangeRoot(EMPTY_RANGE)).to.deep.equal(EMPTY_ROOT)
    let range = EMPTY_RANGE
    for (const [at, leaf] of leaves.entries()) {
      range = appendHashes(range, [leaf])
      expect(Buffer.from(rangeRoot(range))).to.deep.equal(roots[at])
      expect(decodeRange(range.size, encodeRange(range))).to.deep.equal(range)
    }
    expect(decodeRange(7, encodeRange(range))).to.equal(undefined)
    expect(decodeRange(-1, garbage)).to.equal(undefined)
    expect(() => appendHashes(EMPTY_RANGE, [wrong])).to.throw(RangeError)
  })

  it('makes and verifies the published inclusion proofs, and nothing near them', async () => {
    for (const { index, size, proof } of merkle.inclusion) {
      const given: Inclusion = [index, size, leaves[index]!, proof.map(hex), roots[size - 1]!]
      expect(verifyInclusion(...given)).to.equal(true)
      const made = await makeInclusionProof(index, size, tileHashReader(size, tilesOf(leaves)))
      expect(made.map((hash) => Buffer.from(hash).toString('hex'))).to.deep.equal(proof)
      for (const spoiled of spoiledInclusion(given)) {
        expect(verifyInclusion(...spoiled), JSON.stringify(spoiled)).to.equal(false)
      }
    }
    for (const [index, size] of [
      [0, 0],
      [0, 1],
      [1, 0],
      [2, 1],
    ] as const) {
      expect(verifyInclusion(index, size, someHash, [], garbage)).to.equal(false)
      expect(verifyInclusion(index, size, garbage, [], EMPTY_ROOT)).to.equal(false)
      expect(verifyInclusion(index, size, someHash, [], EMPTY_ROOT)).to.equal(false)
    }
    const only = leafHash(Buffer.from('data'))
    expect(verifyInclusion(0, 1, only, [], only)).to.equal(true)
    expect(verifyInclusion(0, 1, garbage, [], only)).to.equal(false)
    expect(verifyInclusion(0, 1, only, [], garbage)).to.equal(false)
    expect(verifyInclusion(0, 1, garbage, [], garbage)).to.equal(false)
  })

  it('makes and verifies the published consistency proofs, and nothing near them', async () => {
    for (const { old, new: size, proof } of merkle.consistency) {
      const given: Consistency = [old, size, proof.map(hex), roots[old - 1]!, roots[size - 1]!]
      expect(verifyConsistency(...given)).to.equal(true)
      const made = await makeConsistencyProof(old, size, tileHashReader(size, tilesOf(leaves)))
      expect(made.map((hash) => Buffer.from(hash).toString('hex'))).to.deep.equal(proof)
      for (const spoiled of proof.length === 0 ? [] : spoiledConsistency(given)) {
        expect(verifyConsistency(...spoiled), JSON.stringify(spoiled)).to.equal(false)
      }
    }
    const [one, two] = [Buffer.from('don’t care 1'), Buffer.from('don’t care 2')]
    expect(verifyConsistency(1, 1, [], two, two)).to.equal(true)
    const refused: Consistency[] = [
      [0, 0, [], one, two],
      [1, 1, [], one, two],
      [0, 0, [], one, one],
      [0, 1, [], one, two],
      [1, 0, [], one, two],
      [2, 1, [], one, two],
      [1, 2, [], one, two],
      [0, 0, [], EMPTY_ROOT, two],
      [1, 1, [], EMPTY_ROOT, two],
      [0, 0, [EMPTY_ROOT], EMPTY_ROOT, EMPTY_ROOT],
      [1, 1, [EMPTY_ROOT], EMPTY_ROOT, EMPTY_ROOT],
      [0, 1, [], EMPTY_ROOT, two],
      [0, 1, [EMPTY_ROOT], EMPTY_ROOT, EMPTY_ROOT],
    ]
    for (const given of refused) expect(verifyConsistency(...given)).to.equal(false)
  })

  it('makes the proofs that x/mod/sumdb/tlog makes, over three levels of tiles', async () => {
    for (const { index, size, root, proof } of sumdb.inclusion) {
      const made = await makeInclusionProof(index, size, tileHashReader(size, tiles))
      expect(made.map((hash) => Buffer.from(hash).toString('base64'))).to.deep.equal(proof)
      expect(verifyInclusion(index, size, big[index]!, made, base64(root))).to.equal(true)
      const edge = await readRange(size, tileHashReader(size, tiles))
      expect(Buffer.from(rangeRoot(edge)).toString('base64')).to.equal(root)
    }
    for (const { old, new: size, oldRoot, newRoot, proof } of sumdb.consistency) {
      const made = await makeConsistencyProof(old, size, tileHashReader(size, tiles))
      expect(made.map((hash) => Buffer.from(hash).toString('base64'))).to.deep.equal(proof)
      expect(verifyConsistency(old, size, made, base64(oldRoot), base64(newRoot))).to.equal(true)
    }
  })

  it('has its tiles, and the same paths', async () => {
    for (const { level, index, width, sha256 } of sumdb.tiles) {
      const bytes = await tiles(level, index, width)
      expect(createHash('sha256').update(bytes).digest('hex')).to.equal(sha256)
    }
    for (const { path, ...tile } of sumdb.paths) {
      expect(tilePath(tile)).to.equal(path)
      expect(parseTilePath(path)).to.deep.equal({ kind: 'tile', ...tile })
    }
  })

  it('makes no proof of what is not there', async () => {
    const read = tileHashReader(8, tilesOf(leaves))
    const attempts = [
      () => makeInclusionProof(8, 8, read),
      () => makeInclusionProof(-1, 8, read),
      () => makeInclusionProof(0.5, 8, read),
      () => makeConsistencyProof(0, 8, read),
      () => makeConsistencyProof(9, 8, read),
    ]
    for (const attempt of attempts) {
      const fault = await attempt().catch((error: unknown) => error)
      expect(fault).to.be.instanceOf(RangeError)
    }
  })
})
