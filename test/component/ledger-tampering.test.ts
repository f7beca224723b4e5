/** Both verifiers, as processes, over an export that was tampered with: each change is found, and found where it is. */
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createHash } from 'node:crypto'
import { promisify } from 'node:util'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { runCli } from '../../cli/program.ts'
import { signCheckpoint } from '../../shared/transparency/checkpoint.ts'
import { formatProof } from '../../shared/transparency/proof-file.ts'
import {
  leafHash,
  makeConsistencyProof,
  makeInclusionProof,
} from '../../shared/transparency/tree.ts'
import { exportOf, exportText, type ExportLine } from '../support/ledger-export.ts'
import { testLedger, testWitness, type TestLedger } from '../support/ledger-tree.ts'

interface Finding {
  readonly ok: boolean
  readonly file: string
  readonly kind: string
  readonly withBytes?: number
  readonly checkpoints?: number
  readonly problem?: {
    readonly code: string
    readonly detail: string
    readonly seq?: number
    readonly line?: number
    readonly between?: readonly [number, number]
  }
}
interface Run {
  readonly code: number
  readonly findings: readonly Finding[]
  readonly err: string
}

const run = promisify(execFile)
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')

async function execute(
  args: readonly string[],
): Promise<{ code: number; out: string; err: string }> {
  try {
    const { stdout, stderr } = await run(process.execPath, args)
    return { code: 0, out: stdout, err: stderr }
  } catch (error) {
    const failed = error as { code: number; stdout: string; stderr: string }
    return { code: failed.code, out: failed.stdout, err: failed.stderr }
  }
}

const VERIFIERS: Record<string, (args: readonly string[]) => Promise<Run>> = {
  async 'nestgate verify'(args) {
    let [out, err] = ['', '']
    const code = await runCli({
      args: ['--output', 'json', 'verify', ...args],
      env: {},
      now: Date.now,
      out: (text) => (out += text),
      err: (text) => (err += text),
    })
    const read = out === '' ? { items: [] } : (JSON.parse(out) as { items: Finding[] })
    return { code, findings: read.items, err }
  },
  async 'verify-ledger.mjs'(args) {
    const { code, out, err } = await execute(['scripts/verify-ledger.mjs', '--json', ...args])
    const lines = out.split('\n').filter((line) => line !== '')
    return { code, findings: lines.map((line) => JSON.parse(line) as Finding), err }
  },
}

const TO = 350
const FROM = 123
/** Number of the line, from 0, at which an entry stands; a checkpoint stands behind each 100 entries. */
const at = (lines: readonly ExportLine[], seq: number): number =>
  lines.findIndex((line) => line['seq'] === seq)

interface Case {
  readonly title: string
  readonly from?: number
  readonly tamper: (lines: ExportLine[], ledger: TestLedger, forger: TestLedger) => unknown
  readonly found: Omit<NonNullable<Finding['problem']>, 'detail'>
}

const CASES: readonly Case[] = [
  {
    title: 'a byte of a leaf',
    tamper(lines) {
      const entry = lines[at(lines, 217)]!
      const bytes = Buffer.from(entry['leaf'] as string, 'base64')
      bytes[5]! ^= 1
      entry['leaf'] = base64(bytes)
    },
    found: { code: 'bytes_changed', seq: 217, line: 221 },
  },
  {
    title: 'an entry left out',
    tamper: (lines) => lines.splice(at(lines, 217), 1),
    found: { code: 'missing', seq: 217, line: 221 },
  },
  {
    title: 'an entry left out, the rest renumbered',
    tamper(lines) {
      lines.splice(at(lines, 217), 1)
      for (const line of lines) if (Number(line['seq']) > 217) line['seq'] = Number(line['seq']) - 1
    },
    found: { code: 'root_differs', between: [200, 300], line: 303 },
  },
  {
    title: 'an entry put in under the number of another',
    tamper: (lines) =>
      lines.splice(at(lines, 217), 0, { seq: 217, ...made(Buffer.from('never happened')) }),
    found: { code: 'doubled', seq: 217, line: 222 },
  },
  {
    title: 'an entry put in behind the last',
    tamper: (lines) =>
      lines.splice(at(lines, TO - 1) + 1, 0, { seq: TO, ...made(Buffer.from('never happened')) }),
    found: { code: 'unexpected', seq: TO, line: 355 },
  },
  {
    title: 'two entries exchanged',
    tamper(lines) {
      const place = at(lines, 217)
      lines.splice(place, 2, lines[place + 1]!, lines[place]!)
    },
    found: { code: 'out_of_order', seq: 217, line: 221 },
  },
  {
    title: 'two entries exchanged, their numbers kept in place',
    tamper(lines) {
      const [one, other] = [lines[at(lines, 217)]!, lines[at(lines, 218)]!]
      const [a, b] = [one, other].map(({ hash, leaf }) => ({ hash, leaf }))
      Object.assign(one, b)
      Object.assign(other, a)
    },
    found: { code: 'root_differs', between: [200, 300], line: 304 },
  },
  {
    title: 'an entry doubled',
    tamper: (lines) => lines.splice(at(lines, 217), 0, { ...lines[at(lines, 217)]! }),
    found: { code: 'doubled', seq: 217, line: 222 },
  },
  {
    title: 'a leaf and its hash',
    tamper: (lines) => Object.assign(lines[at(lines, 217)]!, made(Buffer.from('something else'))),
    found: { code: 'root_differs', between: [200, 300], line: 304 },
  },
  {
    title: 'a leaf and its hash behind the last checkpoint between',
    tamper: (lines) => Object.assign(lines[at(lines, 340)]!, made(Buffer.from('something else'))),
    found: { code: 'root_differs', between: [300, TO], line: 355 },
  },
  {
    title: 'the end cut off',
    tamper: (lines) => lines.splice(at(lines, 330)),
    found: { code: 'cut_short', seq: 330, line: 334 },
  },
  {
    title: 'the last entries cut out, the last line kept',
    tamper: (lines) => lines.splice(at(lines, 330), 20),
    found: { code: 'missing', seq: 330, line: 335 },
  },
  {
    title: 'something behind the last line',
    tamper: (lines) => lines.push({ seq: 349, ...made(Buffer.from('late')) }),
    found: { code: 'malformed', line: 356 },
  },
  {
    title: 'the last checkpoint by another key of the same name',
    async tamper(lines, _, forger) {
      lines.at(-1)!['checkpoint'] = await forger.checkpoint(TO)
    },
    found: { code: 'checkpoint_invalid', line: 355 },
  },
  {
    title: 'the last checkpoint with the right key id, and a wrong signature',
    tamper(lines) {
      const end = lines.at(-1)!
      const [head, encoded] = (end['checkpoint'] as string).split(/ (?=[^ ]+\n$)/) as [
        string,
        string,
      ]
      const bytes = Buffer.from(encoded, 'base64')
      bytes[20]! ^= 1
      end['checkpoint'] = `${head} ${base64(bytes)}\n`
    },
    found: { code: 'checkpoint_invalid', line: 355 },
  },
  {
    title: 'a checkpoint between by another key',
    async tamper(lines, _, forger) {
      lines[at(lines, 199) + 1]!['checkpoint'] = await forger.checkpoint(200)
    },
    found: { code: 'checkpoint_invalid', line: 203 },
  },
  {
    title: 'an older checkpoint in place of the last',
    async tamper(lines, ledger) {
      lines.at(-1)!['checkpoint'] = await ledger.checkpoint(300)
    },
    found: { code: 'rolled_back', line: 355 },
  },
  {
    title: 'something beside what the hash vouches for',
    tamper(lines) {
      lines[at(lines, 217)]!['note'] = 'was allowed'
    },
    found: { code: 'malformed', line: 221 },
  },
  {
    title: 'the edge that a range goes on from',
    from: FROM,
    tamper(lines) {
      const edge = lines.at(-1)!['edge'] as string[]
      edge[0] = base64(leafHash(Buffer.from('x')))
    },
    found: { code: 'edge_differs', line: 1 },
  },
  {
    title: 'the checkpoint before a range by another key',
    from: FROM,
    async tamper(lines, _, forger) {
      lines.at(-1)!['before'] = { checkpoint: await forger.checkpoint(FROM) }
    },
    found: { code: 'checkpoint_invalid', line: 1 },
  },
  {
    title: 'the consistency proof of a range',
    from: FROM,
    tamper(lines) {
      const { consistency } = lines.at(-1)!['before'] as { consistency: string[] }
      consistency.reverse()
    },
    found: { code: 'edge_differs', line: 231 },
  },
  {
    title: 'a leaf and its hash in a range',
    from: FROM,
    tamper: (lines) => Object.assign(lines[at(lines, 150)]!, made(Buffer.from('something else'))),
    found: { code: 'root_differs', between: [FROM, 200], line: 79 },
  },
  {
    title: 'the end of a range cut off',
    from: FROM,
    tamper: (lines) => lines.splice(at(lines, 330)),
    found: { code: 'cut_short', seq: 330, line: 210 },
  },
]

function made(leaf: Uint8Array): ExportLine {
  return { hash: base64(leafHash(leaf)), leaf: base64(leaf) }
}

for (const [name, verify] of Object.entries(VERIFIERS)) {
  describe(`${name}, over a ledger that was tampered with`, () => {
    const ledger = testLedger(TO)
    const forger = testLedger(TO)
    const witness = testWitness('witness.example/w')
    const key = ['--vkey', ledger.signer.vkey]
    let folder: string
    const write = (file: string, text: string | Uint8Array): string => {
      writeFileSync(join(folder, file), text)
      return join(folder, file)
    }

    before(() => {
      folder = mkdtempSync(join(tmpdir(), 'ledger-'))
    })
    after(() => {
      rmSync(folder, { recursive: true })
    })

    it('verifies it untouched: whole, a range, filtered', async () => {
      const files = [
        write('whole', exportText(await exportOf(ledger, { to: TO }))),
        write('range', exportText(await exportOf(ledger, { from: FROM, to: TO }))),
        write('some', exportText(await exportOf(ledger, { to: TO }, (seq) => seq % 7 === 0))),
        write('none', exportText(await exportOf(ledger, { from: FROM, to: FROM }))),
        write('one', exportText(await exportOf(ledger, { to: 1 }))),
      ]
      const { code, findings } = await verify([...key, ...files])
      expect(findings.map(({ problem }) => problem?.detail)).to.deep.equal(Array(5).fill(undefined))
      expect(findings.map(({ withBytes }) => withBytes)).to.deep.equal([350, 227, 50, 0, 1])
      expect(findings.map(({ checkpoints }) => checkpoints)).to.deep.equal([4, 4, 4, 2, 1])
      expect(code).to.equal(0)
    })

    for (const { title, from = 0, tamper, found } of CASES) {
      it(`finds ${title}`, async () => {
        const lines = await exportOf(ledger, { from, to: TO })
        await tamper(lines, ledger, forger)
        const { code, findings } = await verify([...key, write('tampered', exportText(lines))])
        const { detail, ...problem } = findings[0]!.problem!
        expect(problem).to.deep.equal(found)
        expect(detail).to.be.a('string')
        expect(code).to.equal(1)
      })
    }

    const forged = async (): Promise<ExportLine[]> => {
      const lines = await exportOf(ledger, { from: FROM, to: TO })
      Object.assign(lines[at(lines, 217)]!, made(Buffer.from('never happened')))
      return lines.filter(
        (line, place) => place === 0 || line['checkpoint'] === undefined || 'end' in line,
      )
    }

    it('accepts no range whose beginning it could not read ahead', async () => {
      const lines = await forged()
      const long = exportText([
        ...lines.slice(0, -1),
        { ...lines.at(-1), pad: 'x'.repeat(1_048_000) },
      ])
      const [end, ...rest] = exportText(lines).trimEnd().split('\n').reverse()
      const inTwo = `${rest.reverse().join('\n')}\r${end}\n`
      for (const text of [long, inTwo, inTwo.replace('\r', '\u2028')]) {
        const { code, findings } = await verify([...key, write('forged', text)])
        expect(findings[0]!.ok).to.equal(false)
        expect(code).to.equal(1)
      }
    })

    it('takes nothing but a newline for the end of a line', async () => {
      const lines = await exportOf(ledger, { to: TO })
      lines[0]!['filter'] = { name: 'a\u2028b\u2029c' }
      const { findings } = await verify([...key, write('odd', exportText(lines))])
      expect(findings[0]).to.include({ ok: true, withBytes: TO })
    })

    it('believes no key that the export brings along', async () => {
      const file = write('foreign', exportText(await exportOf(forger, { to: TO })))
      const { code, findings } = await verify([...key, file])
      expect(findings[0]!.problem?.code).to.equal('checkpoint_invalid')
      expect(code).to.equal(1)
      const without = await verify([file])
      expect(without.code).to.equal(2)
      expect(without.err).to.contain('no key of a ledger')
    })

    it('finds a ledger that was rolled back, and one that forked, by a known checkpoint', async () => {
      const file = write('older', exportText(await exportOf(ledger, { to: 300 })))
      const known = (text: string): string[] => ['--checkpoint', write('known', text)]
      const back = await verify([...key, ...known(await ledger.checkpoint(TO)), file])
      expect(back.findings[0]!.problem?.code).to.equal('rolled_back')
      expect(back.code).to.equal(1)
      const good = await verify([...key, ...known(await ledger.checkpoint(250)), file])
      expect(good.findings[0]).to.include({ ok: true, checkpoints: 4 })
      // one key, two histories
      const lines = await exportOf(forger, { to: 300, distance: 1000 })
      const fork = write('fork', exportText(lines))
      const keys = [...key, '--vkey', forger.signer.vkey]
      const other = await verify([...keys, ...known(await forger.checkpoint(250)), fork])
      expect(other.findings[0]!.ok).to.equal(true)
      const forked = await verify([...keys, ...known(await forkOf(forger, 250)), fork])
      expect(forked.findings[0]!.problem).to.deep.include({
        code: 'root_differs',
        between: [0, 250],
      })
    })

    it('does not pass over a known checkpoint from before the range', async () => {
      const file = write('range', exportText(await exportOf(ledger, { from: FROM, to: TO })))
      const known = (text: string): string[] => ['--checkpoint', write('known', text)]
      const before = await verify([...key, ...known(await forkOf(ledger, FROM - 1)), file])
      expect(before.code).to.equal(2)
      expect(before.err).to.contain('says nothing of an export that begins at 123')
      const at = await verify([...key, ...known(await ledger.checkpoint(FROM)), file])
      expect(at).to.deep.include({ code: 0 })
    })

    it('finds two checkpoints of one size', async () => {
      const files = [
        write('one', await ledger.checkpoint(TO)),
        write('same', await ledger.checkpoint(TO)),
        write('other', await forkOf(ledger, TO)),
      ]
      const good = await verify([...key, ...files.slice(0, 2)])
      expect(good.code).to.equal(0)
      const bad = await verify([...key, ...files])
      const kinds = bad.findings.filter(({ ok }) => !ok).map(({ kind }) => kind)
      expect(kinds).to.deep.equal(['consistency', 'consistency'])
      expect(bad.code).to.equal(1)
    })

    it('verifies the proof of an entry, and of no other', async () => {
      const hashes = await makeInclusionProof(217, TO, ledger.reader(TO))
      const checkpoint = await ledger.checkpoint(TO)
      const proof = write('p.tlog-proof', formatProof({ index: 217, hashes, checkpoint }))
      const entry = ['--entry', write('entry', ledger.leaves[217]!)]
      expect(await verify([...key, ...entry, proof])).to.deep.include({ code: 0 })
      const other = await verify([...key, '--entry', write('entry', 'another'), proof])
      expect(other.findings[0]!.problem?.code).to.equal('root_differs')
      expect(other.code).to.equal(1)
      expect((await verify([...key, proof])).code).to.equal(2)
      const extra = ledger.leaves[217]!
      const whole = formatProof({ index: 217, hashes, checkpoint, extra })
      expect((await verify([...key, write('p.tlog-proof', whole)])).code).to.equal(0)
      const moved = whole.replace('index 217', 'index 216')
      expect((await verify([...key, write('p.tlog-proof', moved)])).code).to.equal(1)
      const forged = formatProof({
        ...{ index: 217, hashes, extra },
        checkpoint: await forger.checkpoint(TO),
      })
      expect((await verify([...key, write('p.tlog-proof', forged)])).code).to.equal(1)
    })

    it('verifies that one checkpoint goes on from another', async () => {
      const hashes = await makeConsistencyProof(FROM, TO, ledger.reader(TO))
      const proof = ['--consistency', write('proof', `${hashes.map(base64).join('\n')}\n`)]
      const files = [
        write('new', await ledger.checkpoint(TO)),
        write('old', await ledger.checkpoint(FROM)),
      ]
      const good = await verify([...key, ...proof, ...files])
      expect(good.findings.map(({ ok, kind }) => [ok, kind])).to.deep.equal([
        [true, 'checkpoint'],
        [true, 'checkpoint'],
        [true, 'consistency'],
      ])
      expect(good.code).to.equal(0)
      const answer = ['old 123', ...hashes.map(base64), '', await ledger.checkpoint(TO)].join('\n')
      const answered = ['--consistency', write('answer', answer)]
      expect((await verify([...key, ...answered, ...files])).code).to.equal(0)
      const wrong = write('old', await ledger.checkpoint(FROM - 1))
      const bad = await verify([...key, ...proof, files[0]!, wrong])
      expect(bad.findings.at(-1)!.problem?.code).to.equal('root_differs')
      expect(bad.code).to.equal(1)
      expect((await verify([...key, ...proof, files[0]!])).code).to.equal(2)
    })

    it('counts witnesses', async () => {
      const note = await ledger.checkpoint(TO)
      const text = note.slice(0, note.indexOf('\n\n') + 1)
      const cosigned = write('cosigned', note + witness.cosign(text, 1_700_000_000))
      const alone = write('alone', note)
      const keys = [...key, '--vkey', witness.vkey]
      expect((await verify([...keys, cosigned, alone])).code).to.equal(0)
      const { code, findings } = await verify([...keys, '--quorum', '1', cosigned, alone])
      expect(findings.map(({ ok }) => ok)).to.deep.equal([true, false])
      expect(code).to.equal(1)
      // of an export's checkpoints only the last must be witnessed
      const lines = await exportOf(ledger, { to: TO })
      const unseen = write('unseen', exportText(lines))
      lines.at(-1)!['checkpoint'] = note + witness.cosign(text, 1_700_000_000)
      const seen = write('seen', exportText(lines))
      const exports = await verify([...keys, '--quorum', '1', seen, unseen])
      expect(exports.findings.map(({ ok }) => ok)).to.deep.equal([true, false])
    })

    it('verifies files by the hashes that are their names', async () => {
      const files = mkdtempSync(join(folder, 'payloads-'))
      const body = Buffer.from('a body')
      const hash = createHash('sha256').update(body).digest('hex')
      writeFileSync(join(files, `${hash}.json`), body)
      writeFileSync(join(files, 'README'), 'not looked at')
      expect((await verify([files])).code).to.equal(0)
      writeFileSync(join(files, 'f'.repeat(64)), body)
      const { code, findings } = await verify([files])
      expect(findings[0]!.problem).to.include({ code: 'bytes_changed' })
      expect(code).to.equal(1)
    })
  }).timeout(30_000)
}

/** A checkpoint by the key of this ledger over another history. */
function forkOf({ origin, signer, rootAt }: TestLedger, size: number): Promise<string> {
  return signCheckpoint({ origin, size, root: rootAt(size - 1) }, [signer])
}
