/**
 * C2SP tlog-tiles: where the hashes of a tree are served and stored. A tile of level L holds up to 256 roots of
 * complete subtrees of `256^L` leaves, one after the other.
 */
import { HASH_BYTES, nodeHash, TILE_WIDTH, type HashReader } from './tree.ts'

/** Levels of the tree that one level of tiles spans. */
export const TILE_HEIGHT = 8

/** Largest level that a path may name. */
export const MAX_TILE_LEVEL = 63

/** A tile of hashes. `width` is 256 for a full one. */
export interface Tile {
  readonly level: number
  readonly index: number
  readonly width: number
}

/** A bundle of entries: those whose hashes are in the tile of level 0 with the same index and width. */
export interface Bundle {
  readonly index: number
  readonly width: number
}

/** What a path below the ledger's prefix names. */
export type TileResource = ({ kind: 'tile' } & Tile) | ({ kind: 'entries' } & Bundle)

/** Path of a tile: `tile/0/x001/x234/067`, `tile/1/000.p/17`. */
export function tilePath({ level, index, width }: Tile): string {
  if (!isUpTo(level, MAX_TILE_LEVEL)) throw new RangeError(`no level of tiles: ${String(level)}`)
  return `tile/${String(level)}/${indexPath(index)}${widthPath(width)}`
}

/** Path of a bundle: `tile/entries/000`, `tile/entries/x001/000.p/3`. */
export function bundlePath({ index, width }: Bundle): string {
  return `tile/entries/${indexPath(index)}${widthPath(width)}`
}

const PATH = /^tile\/(entries|[0-9]{1,2})\/((?:x[0-9]{3}\/)*[0-9]{3})(?:\.p\/([0-9]{1,3}))?$/

/** What the path names; undefined for everything but the one spelling that `tilePath` or `bundlePath` would write. */
export function parseTilePath(path: string): TileResource | undefined {
  const [, level, groups, partial] = PATH.exec(path) ?? []
  if (level === undefined || groups === undefined) return undefined
  const index = Number(groups.replaceAll(/[x/]/g, ''))
  const width = partial === undefined ? TILE_WIDTH : Number(partial)
  const known = Number.isSafeInteger(index) && width >= 1 && width <= TILE_WIDTH
  if (!known) return undefined
  if (level === 'entries') {
    return bundlePath({ index, width }) === path ? { kind: 'entries', index, width } : undefined
  }
  const tile = { level: Number(level), index, width }
  if (tile.level > MAX_TILE_LEVEL || tilePath(tile) !== path) return undefined
  return { kind: 'tile', ...tile }
}

/** Hashes that tile `index` of a level has in a tree of `size` leaves: 0 to 256. */
export function tileWidth(level: number, index: number, size: number): number {
  const hashes = Math.floor(size / TILE_WIDTH ** level)
  return Math.max(0, Math.min(TILE_WIDTH, hashes - index * TILE_WIDTH))
}

/** Where the hash of a complete subtree is: the tile, and the run of the tile's hashes whose root it is. */
export interface TilePlace {
  readonly tile: Tile
  readonly from: number
  /** A power of two, 1 to 128. */
  readonly count: number
}

/** The tile of the tree of `size` leaves that holds a complete subtree (as in tree.ts); RangeError if it has none. */
export function placeOf(level: number, index: number, size: number): TilePlace {
  const tileLevel = Math.floor(level / TILE_HEIGHT)
  const count = 2 ** (level % TILE_HEIGHT)
  const first = index * count
  const tileIndex = Math.floor(first / TILE_WIDTH)
  const width = tileWidth(tileLevel, tileIndex, size)
  const from = first % TILE_WIDTH
  if (from + count > width) {
    throw new RangeError(
      `no subtree ${String(index)} of level ${String(level)} in ${String(size)} leaves`,
    )
  }
  return { tile: { level: tileLevel, index: tileIndex, width }, from, count }
}

/** Reads a tile: exactly `width` hashes. Rejects when there is none. */
export type TileReader = (level: number, index: number, width: number) => Promise<Uint8Array>

/**
 * Hashes of subtrees of the tree of `size` leaves, from its tiles. Each tile is read once and kept as long as the
 * reader, so use one for a proof and let it go. A tile of the wrong length rejects; that its hashes are the tree's
 * is shown only by verifying the proof, or the root, that is made of them.
 */
export function tileHashReader(size: number, readTile: TileReader): HashReader {
  const tiles = new Map<string, Promise<Uint8Array>>()

  async function checked(tile: Tile): Promise<Uint8Array> {
    const bytes = await readTile(tile.level, tile.index, tile.width)
    if (bytes.length !== tile.width * HASH_BYTES) {
      throw new RangeError(`${tilePath(tile)} has ${String(bytes.length)} bytes`)
    }
    return bytes
  }

  return async (level, index) => {
    const { tile, from, count } = placeOf(level, index, size)
    const path = tilePath(tile)
    const reading = tiles.get(path) ?? checked(tile)
    tiles.set(path, reading)
    return rootOf(await reading, from, count)
  }
}

/** Roots of full tiles, as the level above holds them; `bytes` are the 256 hashes of one. */
export function fullTileRoot(bytes: Uint8Array): Uint8Array {
  if (bytes.length !== TILE_WIDTH * HASH_BYTES) throw new RangeError('not a full tile')
  return rootOf(bytes, 0, TILE_WIDTH)
}

function rootOf(tile: Uint8Array, from: number, count: number): Uint8Array {
  if (count === 1) return tile.slice(from * HASH_BYTES, (from + 1) * HASH_BYTES)
  const half = count / 2
  return nodeHash(rootOf(tile, from, half), rootOf(tile, from + half, half))
}

function indexPath(index: number): string {
  if (!isUpTo(index, Number.MAX_SAFE_INTEGER))
    throw new RangeError(`no index of a tile: ${String(index)}`)
  const digits = String(index)
  const padded = digits.padStart(Math.ceil(digits.length / 3) * 3, '0')
  const groups = padded.match(/.{3}/g) ?? []
  return groups.map((group, at) => (at < groups.length - 1 ? `x${group}` : group)).join('/')
}

function widthPath(width: number): string {
  if (!isUpTo(width, TILE_WIDTH) || width === 0)
    throw new RangeError(`no width of a tile: ${String(width)}`)
  return width === TILE_WIDTH ? '' : `.p/${String(width)}`
}

function isUpTo(value: number, largest: number): boolean {
  return Number.isSafeInteger(value) && value >= 0 && value <= largest
}
