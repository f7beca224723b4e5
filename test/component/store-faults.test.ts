/** What happens around the SQLite file: no room, no right to write, torn logs, flipped bytes, clocks that jump, two owners. */
import { expect } from 'chai'
import { execFileSync, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { codeOf, messageOf } from '../../shared/errors.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { leafHash } from '../../shared/transparency/tree.ts'
import { intent } from '../support/entries.ts'
import { newFile, open } from '../support/sqlite-store.ts'
import { wholeLedger } from '../support/whole-ledger.ts'

const APPENDER = new URL('../support/append-despite-faults.ts', import.meta.url).pathname
/** Largest file while there is no room, in KiB: some hundred entries of the write-ahead log. */
const ROOM_KIB = 3_072
/** Bytes of a frame of the write-ahead log: header and page (SQLite file format, 4.1). */
const FRAME_BYTES = 24 + 4096

describe('around the SQLite file', function () {
  this.timeout(60_000)
  let file: string
  let remove: () => void
  let children: ChildProcess[]
  beforeEach(() => {
    ;({ file, remove } = newFile())
    children = []
  })
  afterEach(() => {
    for (const child of children) child.kill('SIGKILL')
    chmodSync(dirname(file), 0o700)
    remove()
  })

  /** Starts the appender, by a shell command where one is given that ends with `"$@"`. */
  const start = (command?: string): Appender => {
    const program = [process.execPath, APPENDER, file]
    const [name = '', ...args] =
      command === undefined ? program : ['bash', '-c', command, 'bash', ...program]
    const child = spawn(name, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    children.push(child)
    return new Appender(child)
  }
  /** Kills it, and compares what it was told with what is there. */
  const check = async (appender: Appender): Promise<void> => {
    await appender.kill()
    const store = await open(file)
    const { leaves, problems } = await wholeLedger(store)
    await store.close()
    expect(problems).to.deep.equal([])
    const ids = leaves.map(({ bytes }) => idOf(bytes))
    expect(new Set(ids).size, 'no entry twice').to.equal(ids.length)
    for (const [seq, id] of appender.acknowledged) expect(ids[seq], `entry ${seq}`).to.equal(id)
    for (const id of appender.failed.slice(0, -1)) expect(ids, 'failed').not.to.include(id)
  }

  it('a disk without room refuses, loses nothing, and goes on when there is room', async () => {
    const full = start(`trap '' XFSZ; ulimit -S -f ${ROOM_KIB}; exec "$@"`)
    await full.until(() => full.failed.length >= 5)
    expect(full.codes).to.deep.equal(new Set(['store_failed']))
    const before = full.acknowledged.size
    expect(before).to.be.greaterThan(10)
    execFileSync('prlimit', ['--pid', String(full.pid), '--fsize=unlimited:unlimited'])
    await full.until(() => full.acknowledged.size >= before + 50)
    await check(full)
  })

  it('a disk that is read only is refused at start, and what is there stays', async () => {
    const store = await open(file)
    await store.append([intent()])
    await store.close()
    const folder = dirname(file)
    chmodSync(folder, 0o500)
    chmodSync(file, 0o400)
    // root may write whatever the mode says: for it, the mount is read only
    const isRoot = process.getuid?.() === 0
    const mount = `mount --bind '${folder}' '${folder}' && mount -o remount,ro,bind '${folder}'`
    const refused = isRoot
      ? start(`exec unshare --mount bash -c "${mount} && exec \\"\\$@\\"" bash "$@"`)
      : start()
    await refused.until(() => refused.refusals.length > 0)
    expect(refused.refusals).to.deep.equal(['store_failed'])
    await refused.kill()
    chmodSync(folder, 0o700)
    chmodSync(file, 0o600)
    const again = await open(file)
    expect((await wholeLedger(again)).problems).to.deep.equal([])
    expect(await again.append([intent()])).to.equal(1)
    await again.close()
  })

  it('two brokers that start at once on one file: one owns it, the other one when that is gone', async () => {
    const [one, other] = [start(), start()]
    await Promise.all([one, other].map((each) => each.until(() => each.isDecided)))
    const [owner, loser] = one.refusals.length === 0 ? [one, other] : [other, one]
    expect(owner.refusals).to.deep.equal([])
    expect(loser.refusals).to.deep.equal(['store_failed'])
    await owner.until(() => owner.acknowledged.size >= 20)
    await owner.kill()
    const next = start()
    await next.until(() => next.acknowledged.size >= 20)
    for (const [seq, id] of owner.acknowledged) next.acknowledged.set(seq, id)
    await check(next)
  })

  describe('the write-ahead log of a broker that was killed', () => {
    let killed: Appender
    beforeEach(async () => {
      killed = start()
      await killed.until(() => killed.acknowledged.size >= 60)
      await killed.kill()
    })
    const wal = (): string => `${file}-wal`

    it('with a frame that was half written behind it has all that was acknowledged', async () => {
      const log = readFileSync(wal())
      appendFileSync(wal(), log.subarray(-FRAME_BYTES, -FRAME_BYTES / 2))
      await check(killed)
    })

    it('with noise behind it has all that was acknowledged', async () => {
      appendFileSync(wal(), Buffer.alloc(3 * FRAME_BYTES, 0x5a))
      await check(killed)
    })

    for (const [what, tear] of [
      [
        'is cut',
        (path: string): void => {
          truncateSync(path, statSync(path).size - 100)
        },
      ],
      [
        'has a flipped byte',
        (path: string): void => {
          const log = readFileSync(path)
          log.writeUInt8(log.readUInt8(log.length - 100) ^ 1, log.length - 100)
          writeFileSync(path, log)
        },
      ],
    ] as const) {
      it(`whose end ${what} is a ledger that fits, without its last commits, and goes on`, async () => {
        tear(wal())
        const store = await open(file)
        const { leaves, problems } = await wholeLedger(store)
        expect(problems).to.deep.equal([])
        // frames of what was never acknowledged may lie behind the last commit
        expect(leaves.length).to.be.at.least(killed.acknowledged.size - 2)
        for (const [seq, { bytes }] of leaves.entries())
          if (killed.acknowledged.has(seq))
            expect(idOf(bytes)).to.equal(killed.acknowledged.get(seq))
        expect(await store.append([intent()])).to.equal(leaves.length)
        expect((await wholeLedger(store)).problems).to.deep.equal([])
        await store.close()
      })
    }
  })

  /** Fills a file, with a checkpoint of all, and flips bits in every copy of what `mark` finds in it. */
  const flip = async (mark: (bytes: Buffer) => Buffer | string): Promise<void> => {
    const store = await open(file)
    for (let entry = 0; entry < 20; entry += 1) await store.append([intent()])
    await store.append([intent({ requestId: 'last', agent: 'marked-entry' })])
    const { size, root } = await store.head()
    await store.putCheckpoint({ size, root, timeUs: 1, note: 'n' })
    const bytes = (await store.leaves(20, 1))[0]?.bytes ?? new Uint8Array()
    await store.close()
    const content = readFileSync(file)
    const found = mark(Buffer.from(bytes))
    expect(content.indexOf(found)).to.be.greaterThan(0)
    for (let at = content.indexOf(found); at >= 0; at = content.indexOf(found))
      content.writeUInt8(content.readUInt8(at) ^ 0x20, at)
    writeFileSync(file, content)
  }

  it('a flipped byte of a hash that a checkpoint covers is noticed at start', async () => {
    await flip((bytes) => Buffer.from(leafHash(bytes)))
    const refused = await open(file).catch((error: unknown) => error)
    expect(codeOf(refused)).to.equal('ledger_rolled_back')
    expect(messageOf(refused)).to.contain('last checkpoint')
  })

  it('a flipped byte of an entry at the end is noticed at start', async () => {
    await flip(() => 'marked-entry')
    const refused = await open(file).catch((error: unknown) => error)
    expect(codeOf(refused)).to.equal('store_failed')
    expect(messageOf(refused)).to.contain('not those that the head')
  })

  it('a clock that is set back, and far ahead, changes no order and hides nothing', async () => {
    let nowMs = Date.UTC(2030, 0, 1)
    const times = [0, -365 * 24, 1, 24 * 36_500, 2].map((hours) => nowMs + hours * 3_600_000)
    let store = await open(file, { now: () => nowMs })
    const ids: string[] = []
    // more than one block, so that closed blocks know their times too
    for (let at = 0; at < 300; at += 1) {
      nowMs = (times[at % times.length] ?? 0) + at
      const entries = Array.from({ length: 5 }, () => intent({ requestId: newRequestId(nowMs) }))
      ids.push(...entries.map((entry) => entry.requestId))
      expect(await store.append(entries)).to.equal(at * 5)
    }
    await store.close()
    store = await open(file, { now: () => nowMs })
    const { leaves, problems } = await wholeLedger(store)
    expect(problems).to.deep.equal([])
    expect(leaves.map(({ bytes }) => idOf(bytes))).to.deep.equal(ids)
    for (const [index, time] of times.entries()) {
      const range = { sinceMs: time, untilMs: time + 1_000 }
      const found = await store.events(range, 10_000)
      const expected = leaves.filter(
        ({ timeUs }) => timeUs >= range.sinceMs * 1000 && timeUs < range.untilMs * 1000,
      )
      expect(found.length, String(index)).to.equal(expected.length)
      expect(found.length).to.be.at.least(300)
    }
    await store.close()
  })
})

function idOf(bytes: Uint8Array): string {
  return (JSON.parse(Buffer.from(bytes).toString()) as { requestId: string }).requestId
}

/** What an appender said so far. */
class Appender {
  readonly acknowledged = new Map<number, string>()
  readonly failed: string[] = []
  readonly codes = new Set<string>()
  readonly refusals: string[] = []
  isDecided = false
  readonly #child: ChildProcess
  readonly #gone: Promise<unknown>
  #isGone = false

  constructor(child: ChildProcess) {
    this.#child = child
    this.#gone = once(child, 'close').then(() => {
      this.#isGone = true
    })
    if (child.stdout === null) throw new Error('no output')
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.#hear(line.split(' '))
    })
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  #hear([word, first = '', second = '']: readonly string[]): void {
    this.isDecided = true
    if (word === 'OK') this.acknowledged.set(Number(first), second)
    if (word === 'REFUSED') this.refusals.push(first)
    if (word !== 'FAILED') return
    this.failed.push(first)
    this.codes.add(second)
  }

  /** Waits until something is so. Rejects when it ends before. */
  async until(isSo: () => boolean): Promise<void> {
    while (!isSo()) {
      if (this.#isGone) throw new Error('the appender ended')
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }

  /** Kills it and waits until it is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#gone
  }
}
