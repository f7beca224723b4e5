import { createHash } from 'node:crypto'
import {
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { spawnSync } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { createExeHashes, MAX_EXECUTABLE_BYTES } from '../../../../sidecar/caller/exe-hash.ts'

function sha256(bytes: Buffer | string): string {
  return createHash('sha256').update(bytes).digest('hex')
}

describe('executable hashes', () => {
  let dir = ''

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'nestgate-exe-'))
  })
  afterEach(() => {
    rmSync(dir, { recursive: true })
  })

  function file(name: string, content: string): string {
    writeFileSync(join(dir, name), content)
    return join(dir, name)
  }

  it('hashes what a process executes', async () => {
    const hash = await createExeHashes(60_000).of('/proc/self/exe')
    expect(hash).to.deep.equal({ sha256: sha256(readFileSync(process.execPath)) })
  })

  it('follows the link to the file, whatever is at its path now', async () => {
    symlinkSync(file('program', 'first'), join(dir, 'exe'))
    const hashes = createExeHashes()
    expect(await hashes.of(join(dir, 'exe'))).to.deep.equal({ sha256: sha256('first') })
    renameSync(file('other', 'second'), join(dir, 'program'))
    expect(await hashes.of(join(dir, 'exe'))).to.deep.equal({ sha256: sha256('second') })
  })

  it('sees that a file was written over in place', async () => {
    const path = file('program', 'first')
    const hashes = createExeHashes()
    await hashes.of(path)
    writeFileSync(path, 'other')
    expect(await hashes.of(path)).to.deep.equal({ sha256: sha256('other') })
  })

  it('reads a file once for many that ask together', async () => {
    const path = file('program', 'x'.repeat(3_000_000))
    const hashes = createExeHashes()
    const all = await Promise.all(Array.from({ length: 50 }, () => hashes.of(path)))
    expect(new Set(all.map((hash) => JSON.stringify(hash))).size).to.equal(1)
    expect(all[0]).to.deep.equal({ sha256: sha256('x'.repeat(3_000_000)) })
  })

  it('does not hash what is too large', async () => {
    const path = file('program', '')
    truncateSync(path, MAX_EXECUTABLE_BYTES + 1)
    expect(await createExeHashes().of(path)).to.deep.equal({ note: 'too large to be hashed' })
  })

  it('says why there is no hash', async () => {
    expect(await createExeHashes().of(join(dir, 'none'))).to.deep.equal({
      note: 'not hashed: ENOENT',
    })
    expect(await createExeHashes().of(dir)).to.deep.equal({ note: 'not hashed: EISDIR' })
  })

  it('does not let a request wait for a file that never comes', async () => {
    const pipe = join(dir, 'pipe')
    spawnSync('mkfifo', [pipe])
    const hash = createExeHashes(100).of(pipe)
    expect(await hash).to.deep.equal({ note: 'not hashed in time' })
    // Opened for writing, so that the waiting open of the pipe ends as well.
    writeFileSync(pipe, '')
  })
})
