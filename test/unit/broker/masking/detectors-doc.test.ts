import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { detectorsPage } from '../../../../broker/masking/detectors/page.ts'
import { DETECTORS } from '../../../../broker/masking/detectors/table.ts'

describe('docs/detectors.md', () => {
  const text = readFileSync(new URL('../../../../docs/detectors.md', import.meta.url), 'utf8')

  it('is what the table of detectors makes of it', () => {
    expect(text).to.equal(detectorsPage())
  })

  it('has one row for each detector, and each a name of its own', () => {
    const rows = [...text.matchAll(/^\| `([a-z0-9-]+)` \| .+ \|$/gm)].map(([, id]) => id)
    expect(rows).to.deep.equal(DETECTORS.map(({ id }) => id))
    expect(new Set(rows).size).to.equal(rows.length)
  })
})
