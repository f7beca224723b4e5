import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { createTokenSource } from '../../../sidecar/token.ts'

describe('token source', () => {
  let dir: string
  let file: string

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'nestgate-token-'))
    file = join(dir, 'token')
  })
  afterEach(async () => {
    await rm(dir, { recursive: true })
  })

  /** Swaps the data folder under the file, as the kubelet does with a projected volume. */
  async function project(version: string, token: string): Promise<void> {
    await mkdir(join(dir, version))
    await writeFile(join(dir, version, 'token'), token)
    await symlink(version, join(dir, '..data_tmp'))
    await rename(join(dir, '..data_tmp'), join(dir, '..data'))
  }

  it('follows the kubelet’s swap of the data folder at once', async () => {
    await project('..1', 'first')
    await symlink('..data/token', file)
    const source = createTokenSource(file, () => 0)
    expect(source.read()).to.equal('first')
    await project('..2', 'next1')
    expect(source.read()).to.equal('next1')
  })

  it('has no token while the file is missing, and the token once it is there', async () => {
    const source = createTokenSource(file, () => 0)
    expect(source.read()).to.equal(undefined)
    await writeFile(file, 'there\n')
    expect(source.read()).to.equal('there')
    await rm(file)
    expect(source.read()).to.equal(undefined)
  })

  const broken: [string, string][] = [
    ['nothing', ''],
    ['two lines', 'a\nb'],
    ['a header in it', 'a\r\nImpersonate-User: root'],
    ['a space', 'a b'],
    ['more than a token can be', 'x'.repeat(20_000)],
  ]
  for (const [what, text] of broken)
    it(`takes a file with ${what} for no token`, async () => {
      await writeFile(file, text)
      expect(createTokenSource(file, () => 0).read()).to.equal(undefined)
    })
})
