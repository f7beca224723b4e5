import { generateKeyPairSync } from 'node:crypto'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import {
  formatCheckpoint,
  parseCheckpoint,
  verifyCheckpoint,
} from '../../../../shared/transparency/checkpoint.ts'
import {
  formatVkey,
  keySigner,
  parseNote,
  parseVkey,
  signNote,
  TYPE_COSIGNATURE,
  verifyNote,
} from '../../../../shared/transparency/note.ts'
import { formatProof, parseProof, verifyProof } from '../../../../shared/transparency/proof-file.ts'
import {
  appendHashes,
  EMPTY_RANGE,
  leafHash,
  makeConsistencyProof,
  makeInclusionProof,
  rangeRoot,
  sameHash,
  verifyConsistency,
} from '../../../../shared/transparency/tree.ts'
import {
  keyOf,
  testLedger,
  testWitness,
  tilesOf,
  transparencyVectors,
  valueOf,
} from '../../../support/ledger-tree.ts'
import { tileHashReader } from '../../../../shared/transparency/tiles.ts'

const sumdb = transparencyVectors('sumdb.json') as Record<string, string>
const published = transparencyVectors('signed-note.json') as { note: string; cosigned: string }
const tessera = transparencyVectors('tessera-log.json') as {
  vkey: string
  entries: string[]
  checkpoints: string[]
}
const a = keyOf(sumdb['vkey log.example/a']!)
const b = keyOf(sumdb['vkey log.example/b']!)
const ed25519 = (): ReturnType<typeof keySigner> =>
  keySigner('log.example/c', generateKeyPairSync('ed25519').privateKey)

describe('signed notes', () => {
  it('verifies what x/mod/sumdb/note signed', () => {
    const both = valueOf(verifyNote(sumdb['note']!, [b, a]))
    expect(both.signedBy.map(({ key }) => key.name)).to.deep.equal([a.name, b.name])
    expect(valueOf(verifyNote(sumdb['note']!, [b])).signedBy).to.have.length(1)
    const odd = valueOf(verifyNote(Buffer.from(sumdb['noteWithEmptyLine']!), [b]))
    expect(odd.text).to.equal('Zwei Absätze.\n\nUnd ein zweiter, ✓.\n')
  })

  it('parses the examples of the specifications', () => {
    const note = valueOf(parseNote(published.note))
    expect(note.text.endsWith('\n\ned è subito sera.\n')).to.equal(true)
    expect(note.signatures[0]!.name).to.equal('quasimodo.example/salvatore')
    expect(note.signatures[0]!.id).to.equal('367ba04b')
    expect(note.signatures[0]!.bytes).to.have.length(64)
    const cosigned = valueOf(parseNote(published.cosigned))
    expect(cosigned.signatures.map(({ bytes }) => bytes.length)).to.deep.equal([64, 72])
    expect(valueOf(parseCheckpoint(cosigned.text)).size).to.equal(20_852_163)
    const time = Buffer.from(cosigned.signatures[1]!.bytes).readBigUInt64BE()
    expect(time).to.equal(1_679_315_147n)
  })

  it('writes the vkey that the log’s own tools print, and reads no other', () => {
    for (const vkey of [a.vkey, b.vkey, tessera.vkey]) {
      const raw = Buffer.from(vkey.split('+').slice(2).join('+'), 'base64').subarray(1)
      expect(formatVkey(vkey.split('+')[0]!, raw)).to.equal(vkey)
    }
    const [name, id, key] = ['log.example/a', a.id, a.vkey.split('+').slice(2).join('+')]
    const typed = (type: number): string =>
      Buffer.concat([Buffer.from([type]), Buffer.from(key, 'base64').subarray(1)]).toString(
        'base64',
      )
    const bad = [
      `${name}+${id}`,
      `+${id}+${key}`,
      `log example+${id}+${key}`,
      `log.example/b+${id}+${key}`,
      `${name}+00000000+${key}`,
      `${name}+${id.toUpperCase()}0+${key}`,
      `${name}+${id}+${key}=`,
      `${name}+${id}+${key.slice(0, -4)}`,
      `${name}+${id}+${typed(2)}`,
      `${name}+${id}+${typed(4)}`,
    ]
    for (const vkey of bad) expect(parseVkey(vkey).problem, vkey).to.be.a('string')
    expect(() => formatVkey('a b', Buffer.alloc(32))).to.throw(RangeError)
    expect(() => formatVkey('a', Buffer.alloc(31))).to.throw(RangeError)
  })

  it('ignores unknown keys, and refuses wrong signatures of known ones', async () => {
    const c = ed25519()
    const note = await signNote('text\n', [c, ed25519()])
    const key = keyOf(c.vkey)
    expect(valueOf(verifyNote(note, [key])).signedBy).to.have.length(1)
    expect(verifyNote(note, [a]).problem).to.contain('not signed by a key that is trusted')
    expect(verifyNote(note, []).problem).to.be.a('string')
    expect(verifyNote(note.replace('text', 'test'), [key]).problem).to.contain('is wrong')
    const lines = note.split('\n')
    const [mine] = lines.splice(2, 1)
    const doubled = note + `${mine!}\n`
    expect(valueOf(verifyNote(doubled, [key])).signedBy).to.have.length(1)
    // the right name and id over another text
    const forged = (await signNote('other\n', [c])).split('\n')[2]!
    expect(verifyNote(`${note}${forged}\n`, [key]).problem).to.contain('is wrong')
    // the id of one key under the name of another
    const renamed = `text\n\n${mine!.replace('log.example/c', 'log.example/d')}\n`
    expect(verifyNote(renamed, [key]).problem).to.contain('not signed')
  })

  it('refuses what is not a note by the letter', async () => {
    const c = ed25519()
    const key = keyOf(c.vkey)
    const note = await signNote('text\n', [c])
    const line = note.slice('text\n\n'.length)
    const bad = [
      '',
      'text\n',
      'text\n\n',
      note.slice(0, -1),
      note.replace('\n\n', '\n'),
      note.replace('— ', '- '),
      note.replace('log.example/c ', 'log.example/c  '),
      note.replace('log.example/c', 'log+c'),
      note.replace('text', 'te\txt'),
      note.replace('text', 'te\r'),
      note.replace(/ [^ ]+\n$/, ' AAAA\n'),
      note.replace(/=\n$/, '\n'),
      note.replace('text', 'te\ud800'),
      note + line.repeat(100),
      `${'x'.repeat(1024 * 1024)}\n\n${line}`,
      `${note}\n`,
    ]
    for (const text of bad) expect(parseNote(text).problem, text.slice(0, 80)).to.be.a('string')
    expect(parseNote(Buffer.from([0xff, ...Buffer.from(note)])).problem).to.contain('UTF-8')
    expect(parseNote(Buffer.from([0xef, 0xbb, 0xbf, ...Buffer.from(note)])).problem).to.equal(
      undefined,
    )
    expect(verifyNote(note, [key]).problem).to.equal(undefined)
    const fault = await signNote('no newline', [c]).catch((error: unknown) => error)
    expect(fault).to.be.instanceOf(RangeError)
    expect(() => keySigner('a', generateKeyPairSync('x25519').privateKey)).to.throw(RangeError)
  })
})

describe('checkpoints', () => {
  it('verifies the log of tessera, size by size', async () => {
    const key = keyOf(tessera.vkey)
    const leaves = tessera.entries.map((entry) => leafHash(Buffer.from(entry)))
    const states = tessera.checkpoints.map((note) =>
      valueOf(verifyCheckpoint(note, [key], 'example.com/log/testdata')),
    )
    expect(states.map(({ size }) => size)).to.deep.equal([...Array(16).keys()])
    for (const { size, root } of states) {
      const edge = appendHashes(EMPTY_RANGE, leaves.slice(0, size))
      expect(sameHash(rangeRoot(edge), root), String(size)).to.equal(true)
      const read = tileHashReader(size, tilesOf(leaves))
      for (const old of states.slice(1, size + 1)) {
        const proof = await makeConsistencyProof(old.size, size, read)
        expect(verifyConsistency(old.size, size, proof, old.root, root)).to.equal(true)
      }
    }
  })

  it('reads its own text back, tolerates extension lines, and nothing else', () => {
    const root = leafHash(Buffer.from('x'))
    const text = formatCheckpoint({ origin: 'o', size: 7, root })
    const state = valueOf(parseCheckpoint(text))
    expect(state.size).to.equal(7)
    expect(sameHash(state.root, root)).to.equal(true)
    expect(valueOf(parseCheckpoint(`${text}more\n`)).size).to.equal(7)
    const lines = text.split('\n')
    const bad = [
      text.slice(0, -1),
      `\n${lines[1]!}\n${lines[2]!}\n`,
      `o\n07\n${lines[2]!}\n`,
      `o\n+7\n${lines[2]!}\n`,
      `o\n7.0\n${lines[2]!}\n`,
      `o\n9007199254740992\n${lines[2]!}\n`,
      'o\n7\n',
      `o\n7\n${lines[2]!.slice(0, -4)}\n`,
      `o\n7\n${lines[2]!.replace('=', '')}\n`,
      `${text}\nmore\n`,
    ]
    for (const other of bad) expect(parseCheckpoint(other).problem, other).to.be.a('string')
    expect(() => formatCheckpoint({ origin: '', size: 7, root })).to.throw(RangeError)
    expect(() => formatCheckpoint({ origin: 'o\nx', size: 7, root })).to.throw(RangeError)
    expect(() => formatCheckpoint({ origin: 'o', size: -1, root })).to.throw(RangeError)
    expect(() => formatCheckpoint({ origin: 'o', size: 7, root: root.subarray(1) })).to.throw(
      RangeError,
    )
  })

  it('counts witnesses, but does not let them replace the log', async () => {
    const ledger = testLedger(5)
    const witness = testWitness('witness.example/w')
    const note = await ledger.checkpoint(5)
    const text = note.slice(0, note.indexOf('\n\n') + 1)
    const cosigned = note + witness.cosign(text, 1_700_000_000)
    const keys = [keyOf(ledger.signer.vkey), keyOf(witness.vkey)]
    const state = valueOf(verifyCheckpoint(cosigned, keys, ledger.origin))
    expect(state.signedBy.map(({ time }) => time)).to.deep.equal([undefined, 1_700_000_000])
    expect(verifyCheckpoint(cosigned, keys.slice(1)).problem).to.contain('witnesses only')
    expect(verifyCheckpoint(cosigned, keys, 'other').problem).to.contain('not of other')
    const [line] = witness.cosign(text, 1_700_000_000).split('\n')
    const bytes = Buffer.from(line!.split(' ')[2]!, 'base64')
    bytes[11]! ^= 1
    const later = `${note}— witness.example/w ${bytes.toString('base64')}\n`
    expect(verifyCheckpoint(later, keys).problem).to.contain('is wrong')
    expect(keys[1]!.type).to.equal(TYPE_COSIGNATURE)
  })
})

describe('proof files', () => {
  const ledger = testLedger(300)
  const keys = [keyOf(ledger.signer.vkey)]

  it('show that an entry is in the log, and no other', async () => {
    const checkpoint = await ledger.checkpoint(300)
    const hashes = await makeInclusionProof(257, 300, ledger.reader(300))
    const extra = Buffer.from('anything')
    for (const more of [{}, { extra }]) {
      const text = formatProof({ index: 257, hashes, checkpoint, ...more })
      expect(text.startsWith('c2sp.org/tlog-proof@v1\n')).to.equal(true)
      const proven = valueOf(verifyProof(text, ledger.hashes[257]!, keys, ledger.origin))
      expect(proven.index).to.equal(257)
      expect(proven.checkpoint.size).to.equal(300)
      expect(formatProof(valueOf(parseProof(text)))).to.equal(text)
      expect(verifyProof(text, ledger.hashes[256]!, keys).problem).to.contain('number 257')
      const moved = text.replace('index 257', 'index 256')
      expect(verifyProof(moved, ledger.hashes[257]!, keys).problem).to.contain('number 256')
      expect(verifyProof(text, ledger.hashes[257]!, [a]).problem).to.contain('not signed')
    }
  })

  it('are read strictly', async () => {
    const checkpoint = await ledger.checkpoint(300)
    const hash = Buffer.from(ledger.hashes[0]!).toString('base64')
    const good = `c2sp.org/tlog-proof@v1\nindex 0\n${hash}\n\n${checkpoint}`
    expect(parseProof(good).problem).to.equal(undefined)
    const bad = [
      good.replace('@v1', '@v2'),
      good.replace('index 0\n', ''),
      good.replace('index 0', 'index 00'),
      good.replace('index 0', 'index -1'),
      good.replace('index 0', 'index  0'),
      good.replace('index 0', 'extra !!\nindex 0'),
      good.replace('index 0', 'index 0\nextra AAAA'),
      good.replace(hash, hash.slice(0, -4)),
      good.replace(hash, '!!notbase64!!'),
      good.replace(hash, Array(64).fill(hash).join('\n')),
      good.split('\n\n')[0]!,
    ]
    for (const text of bad) expect(parseProof(text).problem, text).to.be.a('string')
  })
})
