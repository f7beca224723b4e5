import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { messageOf } from '../../../shared/errors.ts'
import { waitForFiles, watchFiles } from '../../../shared/watched-files.ts'
import type { Watch } from '../../../shared/watched-files.ts'

const INTERVAL_MS = 10

describe('files that are waited for', () => {
  let folder: string
  const told: string[][] = []
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'awaited-'))
    told.length = 0
  })
  afterEach(() => rm(folder, { recursive: true }))
  const wait = async (limitMs: number): Promise<number> => {
    const start = performance.now()
    const files = ['one', 'two'].map((name) => join(folder, name))
    await waitForFiles(files, limitMs, (missing) => told.push([...missing]))
    return performance.now() - start
  }

  it('are told of once, and taken as soon as each has content', async () => {
    await writeFile(join(folder, 'two'), '')
    const waiting = wait(10_000)
    await sleep(50)
    await writeFile(join(folder, 'one'), '1')
    await sleep(600)
    await writeFile(join(folder, 'two'), '2')
    expect(await waiting).to.be.within(600, 3_000)
    expect(told).to.deep.equal([[join(folder, 'one'), join(folder, 'two')]])
  })

  it('are not waited for longer than was said, nor where nothing was said', async () => {
    expect(await wait(300)).to.be.within(295, 1_500)
    expect(told).to.have.length(1)
    expect(await wait(0)).to.be.lessThan(100)
    expect(told).to.have.length(1)
  })
})

describe('watched files', () => {
  let folder: string
  let seen: string[]
  let failures: string[]
  let watch: Watch<string> | undefined
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'watched-'))
    seen = []
    failures = []
    // As the kubelet lays out a volume: file → ..data/file, ..data → a folder named by time.
    await fill('..v1', 'one')
    await symlink('..v1', join(folder, '..data'))
    await symlink(join('..data', 'file'), join(folder, 'file'))
  })
  afterEach(async () => {
    watch?.stop()
    watch = undefined
    await rm(folder, { recursive: true })
  })

  async function fill(version: string, text: string): Promise<void> {
    await mkdir(join(folder, version))
    await writeFile(join(folder, version, 'file'), text)
  }

  async function swap(version: string, text: string): Promise<void> {
    await fill(version, text)
    await symlink(version, join(folder, '..new'))
    await rename(join(folder, '..new'), join(folder, '..data'))
  }

  async function start(): Promise<string> {
    watch = await watchFiles({
      files: [join(folder, 'file')],
      load: ([text = '']) => {
        if (text.startsWith('bad')) throw new Error('not good')
        return text
      },
      changed: (value) => seen.push(value),
      failed: (_files, error) => failures.push(messageOf(error)),
      intervalMs: INTERVAL_MS,
    })
    return watch.first
  }

  async function until(done: () => boolean): Promise<void> {
    for (let i = 0; i < 200 && !done(); i += 1) await sleep(INTERVAL_MS)
    expect(done()).to.equal(true)
  }

  it('are seen to change when the kubelet swaps a volume, once for each change', async () => {
    expect(await start()).to.equal('one')
    await swap('..v2', 'two')
    await until(() => seen.length > 0)
    await swap('..v3', 'three')
    await until(() => seen.length > 1)
    await sleep(5 * INTERVAL_MS)
    expect(seen).to.deep.equal(['two', 'three'])
    expect(failures).to.deep.equal([])
  })

  it('keep their last good value while they are bad or gone, and complain once', async () => {
    await start()
    await swap('..v2', 'bad')
    await until(() => failures.length > 0)
    await sleep(5 * INTERVAL_MS)
    await rm(join(folder, '..data'))
    await until(() => failures.length > 1)
    expect(failures[0]).to.equal('not good')
    expect(failures[1]).to.match(/file: ENOENT$/)
    await symlink('..v1', join(folder, '..data'))
    await swap('..v3', 'three')
    await until(() => seen.length > 0)
    expect(seen).to.deep.equal(['three'])
    expect(failures).to.have.length(2)
  })

  it('stop a start that they are not good for', async () => {
    await swap('..v2', 'bad')
    const error: unknown = await start().catch((reason: unknown) => reason)
    expect(messageOf(error)).to.equal('not good')
  })

  it('are left alone after the stop', async () => {
    await start()
    watch?.stop()
    await swap('..v2', 'two')
    await sleep(5 * INTERVAL_MS)
    expect(seen).to.deep.equal([])
  })
})
