/** A ledger in memory: its tiles, proofs and signed checkpoints. */
import { generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { signCheckpoint } from '../../shared/transparency/checkpoint.ts'
import {
  cosignedMessage,
  formatVkey,
  keySigner,
  parseVkey,
  rawPublicKey,
  signatureLine,
  TYPE_COSIGNATURE,
} from '../../shared/transparency/note.ts'
import type { Checked, NoteKey, NoteSigner } from '../../shared/transparency/note.ts'
import { tileHashReader, type TileReader } from '../../shared/transparency/tiles.ts'
import {
  appendHashes,
  EMPTY_RANGE,
  leafHash,
  nodeHash,
  rangeRoot,
} from '../../shared/transparency/tree.ts'
import type { HashReader } from '../../shared/transparency/tree.ts'

/** Data of test/vectors/transparency. */
export function transparencyVectors(name: string): unknown {
  const file = new URL(`../vectors/transparency/${name}`, import.meta.url)
  return JSON.parse(readFileSync(file, 'utf8'))
}

/** The value, where there is one. */
export function valueOf<T>(checked: Checked<T>): T {
  if (checked.problem !== undefined) throw new Error(checked.problem)
  return checked.value
}

export function keyOf(vkey: string): NoteKey {
  return valueOf(parseVkey(vkey))
}

/** Tiles of a tree, made from its leaf hashes by pairing up, level by level. */
export function tilesOf(leaves: readonly Uint8Array[]): TileReader {
  const levels: (readonly Uint8Array[])[] = [leaves]
  return (level, index, width) => {
    while (levels.length <= level * 8) {
      const below = levels.at(-1)!
      levels.push(
        Array.from({ length: Math.floor(below.length / 2) }, (_, i) =>
          nodeHash(below[2 * i]!, below[2 * i + 1]!),
        ),
      )
    }
    const hashes = levels[level * 8]!.slice(index * 256, index * 256 + width)
    if (hashes.length !== width) return Promise.reject(new Error('no such tile'))
    return Promise.resolve(Buffer.concat(hashes))
  }
}

/** A ledger with a key of its own, and any entries. */
export interface TestLedger {
  readonly origin: string
  readonly signer: NoteSigner
  readonly leaves: readonly Buffer[]
  readonly hashes: readonly Uint8Array[]
  readonly rootAt: (size: number) => Uint8Array
  readonly reader: (size: number) => HashReader
  readonly checkpoint: (size: number) => Promise<string>
}

export function testLedger(entries: number, origin = 'ledger.example/nestgate'): TestLedger {
  const signer = keySigner(origin, generateKeyPairSync('ed25519').privateKey)
  const leaves = Array.from({ length: entries }, (_, seq) =>
    Buffer.from(JSON.stringify({ seq, kind: seq % 3 === 0 ? 'intent' : 'outcome', text: 'entry' })),
  )
  const hashes = leaves.map(leafHash)
  const rootAt = (size: number): Uint8Array =>
    rangeRoot(appendHashes(EMPTY_RANGE, hashes.slice(0, size)))
  const tiles = tilesOf(hashes)
  return {
    origin,
    signer,
    leaves,
    hashes,
    rootAt,
    reader: (size) => tileHashReader(size, tiles),
    checkpoint: (size) => signCheckpoint({ origin, size, root: rootAt(size) }, [signer]),
  }
}

/** A witness: its vkey, and its line under a checkpoint's text. */
export function testWitness(name: string): {
  vkey: string
  cosign: (text: string, time: number) => string
} {
  const key: KeyObject = generateKeyPairSync('ed25519').privateKey
  const vkey = formatVkey(name, rawPublicKey(key), TYPE_COSIGNATURE)
  const id = Buffer.from(vkey.split('+')[1]!, 'hex')
  return {
    vkey,
    cosign(text, time) {
      const stamp = Buffer.alloc(8)
      stamp.writeBigUInt64BE(BigInt(time))
      const signature = sign(null, cosignedMessage(Buffer.from(text), time), key)
      return signatureLine(name, Buffer.concat([id, stamp, signature]))
    },
  }
}
