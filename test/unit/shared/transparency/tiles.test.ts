import { expect } from 'chai'
import { describe, it } from 'mocha'
import { decodeBundle, encodeBundle } from '../../../../shared/transparency/bundle.ts'
import {
  bundlePath,
  fullTileRoot,
  parseTilePath,
  placeOf,
  tileHashReader,
  tilePath,
  tileWidth,
} from '../../../../shared/transparency/tiles.ts'
import { leafHash, makeInclusionProof } from '../../../../shared/transparency/tree.ts'
import { testLedger, tilesOf } from '../../../support/ledger-tree.ts'

describe('tiles', () => {
  it('reads one spelling of a path only', () => {
    const good = [
      'tile/0/000',
      'tile/63/x123/456.p/255',
      'tile/entries/000.p/1',
      'tile/entries/999',
    ]
    for (const path of good) {
      const named = parseTilePath(path)!
      expect(named.kind === 'tile' ? tilePath(named) : bundlePath(named)).to.equal(path)
    }
    const bad = [
      'tile/00/000',
      'tile/64/000',
      'tile/0/00',
      'tile/0/0000',
      'tile/0/x000/001',
      'tile/0/001/002',
      'tile/0/x001/x002',
      'tile/0/000.p/0',
      'tile/0/000.p/01',
      'tile/0/000.p/256',
      'tile/0/000.p/',
      'tile/0/000/',
      '/tile/0/000',
      'tile/0/000\n',
      'tile/-1/000',
      'tile/entry/000',
      'tile/0/x999/x999/x999/x999/x999/999',
      'tile/8/0/000',
    ]
    for (const path of bad) expect(parseTilePath(path), path).to.equal(undefined)
  })

  it('has the widths of the specification’s example', () => {
    const widths = [
      [0, 272, 256],
      [0, 273, 112],
      [0, 274, 0],
      [1, 0, 256],
      [1, 1, 17],
      [2, 0, 1],
      [3, 0, 0],
    ] as const
    for (const [level, index, width] of widths) {
      expect(tileWidth(level, index, 70_000)).to.equal(width)
    }
    expect(tileWidth(1, 0, 256)).to.equal(1)
    expect(placeOf(8, 0, 256)).to.deep.equal({
      tile: { level: 1, index: 0, width: 1 },
      from: 0,
      count: 1,
    })
    expect(placeOf(3, 33, 300)).to.deep.equal({
      tile: { level: 0, index: 1, width: 44 },
      from: 8,
      count: 8,
    })
    expect(() => placeOf(3, 37, 300)).to.throw(RangeError)
  })

  it('refuses a tile of another length, and reads each once', async () => {
    const { hashes } = testLedger(300)
    const tiles = tilesOf(hashes)
    let reads = 0
    const counted = tileHashReader(300, (level, index, width) => {
      reads += 1
      return tiles(level, index, width)
    })
    await makeInclusionProof(299, 300, counted)
    expect(reads).to.equal(2)
    const short = tileHashReader(300, async (level, index, width) =>
      (await tiles(level, index, width)).subarray(1),
    )
    const fault = await makeInclusionProof(299, 300, short).catch((error: unknown) => error)
    expect(fault).to.be.instanceOf(RangeError)
    expect((fault as Error).message).to.equal('tile/0/001.p/44 has 1407 bytes')
    expect(fullTileRoot(await tiles(0, 0, 256))).to.deep.equal(await tiles(1, 0, 1))
    expect(() => fullTileRoot(Buffer.alloc(32))).to.throw(RangeError)
  })
})

describe('entry bundles', () => {
  const entries = [Buffer.from('one'), Buffer.alloc(0), Buffer.alloc(65_535, 7)]

  it('come back as they went in', () => {
    const bundle = encodeBundle(entries)
    expect(Buffer.from(bundle.subarray(0, 7)).toString('latin1')).to.equal('\0\x03one\0\0')
    expect(decodeBundle(bundle, 3)?.map(leafHash)).to.deep.equal(entries.map(leafHash))
  })

  it('are refused when cut, lengthened, or of another width', () => {
    const bundle = Buffer.from(encodeBundle(entries))
    expect(decodeBundle(bundle, 2)).to.equal(undefined)
    expect(decodeBundle(bundle, 4)).to.equal(undefined)
    expect(decodeBundle(bundle.subarray(0, -1), 3)).to.equal(undefined)
    expect(decodeBundle(bundle.subarray(0, 6), 2)).to.equal(undefined)
    expect(decodeBundle(Buffer.concat([bundle, Buffer.from([0])]), 3)).to.equal(undefined)
    expect(() => encodeBundle([])).to.throw(RangeError)
    expect(() => encodeBundle([Buffer.alloc(65_536)])).to.throw(RangeError)
    expect(() => encodeBundle(Array.from({ length: 257 }, () => Buffer.alloc(1)))).to.throw(
      RangeError,
    )
  })
})
