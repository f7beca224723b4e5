import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  mkdtempSync,
  mkdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { codeOf, messageOf } from '../../../shared/errors.ts'
import { readOwnFile, readPrivateFile, readPrivateFileSync } from '../../../shared/private-file.ts'

const SECRET = 'the-secret-itself'

describe('a private file', () => {
  let dir: string
  let file: string
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'private-'))
    file = join(dir, 'key')
    writeFileSync(file, SECRET)
  })
  afterEach(() => {
    rmSync(dir, { recursive: true })
  })

  /** What both ways of reading say: the text, or the error. */
  async function read(path = file): Promise<string | Error> {
    const asError = (error: unknown): Error => error as Error
    const later = await readPrivateFile(path).catch(asError)
    let now: string | Error
    try {
      now = readPrivateFileSync(path)
    } catch (error) {
      now = asError(error)
    }
    expect(messageOf(now)).to.equal(messageOf(later))
    return later
  }

  // 0440: a Secret with fsGroup; 0640: a projected service-account token with fsGroup
  for (const mode of [0o400, 0o600, 0o700, 0o440, 0o640])
    it(`may have mode ${mode.toString(8)}`, async () => {
      chmodSync(file, mode)
      expect(await read()).to.equal(SECRET)
    })

  for (const mode of [0o644, 0o604, 0o602, 0o601, 0o660, 0o620, 0o444, 0o777])
    it(`is refused with mode ${mode.toString(8)}, by path and mode alone`, async () => {
      chmodSync(file, mode)
      const error = await read()
      expect(codeOf(error)).to.equal('file_not_private')
      expect(messageOf(error))
        .to.include(file)
        .and.include(`mode 0${mode.toString(8)}:`)
      expect(messageOf(error)).not.to.include(SECRET)
    })

  it('is what the links of a Kubernetes volume lead to', async () => {
    mkdirSync(join(dir, '..v1'))
    const target = join(dir, '..v1', 'token')
    writeFileSync(target, SECRET, { mode: 0o640 })
    symlinkSync('..v1', join(dir, '..data'))
    symlinkSync(join('..data', 'token'), join(dir, 'token'))
    expect(await read(join(dir, 'token'))).to.equal(SECRET)
    chmodSync(target, 0o644)
    expect(codeOf(await read(join(dir, 'token')))).to.equal('file_not_private')
  })

  it('is a file: no folder, no device, and no pipe that would be waited for', async () => {
    execFileSync('mkfifo', ['-m', '600', join(dir, 'pipe')])
    for (const path of [dir, join(dir, 'pipe'), '/dev/zero'])
      expect(messageOf(await read(path))).to.equal(`${path} is not a regular file`)
  })

  it('is of a bounded size', async () => {
    writeFileSync(file, 'x'.repeat(1024 * 1024 + 1))
    chmodSync(file, 0o600)
    expect(messageOf(await read())).to.include('larger than')
  })

  it('that is not there is the system’s error', async () => {
    expect(codeOf(await read(join(dir, 'none')))).to.equal('ENOENT')
  })

  describe('that is the process’s own', () => {
    for (const [mode, kept] of [
      [0o660, 0o600],
      [0o620, 0o600],
      [0o440, 0o440],
      [0o600, 0o600],
    ] as const)
      it(`is read with mode ${mode.toString(8)}, which a volume with fsGroup makes of it, and has ${kept.toString(8)} then`, async () => {
        chmodSync(file, mode)
        expect(await readOwnFile(file)).to.equal(SECRET)
        expect(statSync(file).mode & 0o777).to.equal(kept)
      })

    for (const mode of [0o664, 0o604, 0o666])
      it(`is refused with mode ${mode.toString(8)} all the same`, async () => {
        chmodSync(file, mode)
        expect(codeOf(await readOwnFile(file).catch((error: unknown) => error))).to.equal(
          'file_not_private',
        )
      })
  })
})
