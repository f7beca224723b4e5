/** Every golden case of this folder; see test/support/connect-golden.ts, `node scripts/update-golden.ts` to rewrite them. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { CONNECT_GOLDEN_FOLDER, connectCases } from '../../support/connect-golden.ts'

const cases = connectCases()

describe('golden files of nestgate connect', () => {
  it('are of all cases and no others', () => {
    const folders = readdirSync(CONNECT_GOLDEN_FOLDER, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name)
    expect(folders.sort()).to.deep.equal([...cases.keys()].sort())
  })

  for (const [name, files] of cases)
    it(`${name} comes out as written down`, () => {
      const folder = join(CONNECT_GOLDEN_FOLDER, name)
      expect(readdirSync(folder).sort()).to.deep.equal(files.map((file) => file.name).sort())
      for (const file of files)
        expect(file.text, file.name).to.equal(readFileSync(join(folder, file.name), 'utf8'))
    })
})
