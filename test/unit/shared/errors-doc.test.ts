import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { REASONS } from '../../../shared/reasons.ts'

describe('docs/errors.md', () => {
  const text = readFileSync(new URL('../../../docs/errors.md', import.meta.url), 'utf8')
  const documented = new Map(
    [...text.matchAll(/^\| `([a-z_]+)` \| (\d{3}) \| (.+?) \| (.+?) \|$/gm)].map(
      ([, code = '', status, sentence, remedy]) => [
        code,
        { status: Number(status), sentence, remedy },
      ],
    ),
  )

  it('lists every reason code with its status, sentence and remedy, and no other', () => {
    expect(Object.fromEntries(documented)).to.deep.equal(REASONS)
  })
})
