import { expect } from 'chai'
import { describe, it } from 'mocha'
import { parsePolicy } from '../../../../shared/transparency/policy.ts'
import { keyOf, testLedger, testWitness, valueOf } from '../../../support/ledger-tree.ts'

const log = testLedger(1).signer.vkey
const names = ['X1', 'X2', 'X3', 'Y1', 'Y2', 'Y3']
const vkeys = names.map((name) => testWitness(`${name}.example`).vkey)
const witnesses = names.map((name, i) => `witness ${name} ${vkeys[i]!}`)

/** The example of the specification. */
const EXAMPLE = `
# a comment
log ${log}\thttps://ledger.example
  ${witnesses.join('\n')} https://y3.example
group X-witnesses 2 X1 X2 X3
group Y-witnesses any Y1 Y2 Y3
group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
`

describe('trust policies', () => {
  it('counts the witnesses of the specification’s example', () => {
    const policy = valueOf(parsePolicy(EXAMPLE))
    expect(policy.logs.map(({ vkey }) => vkey)).to.deep.equal([log])
    expect(policy.witnesses.map(({ vkey }) => vkey)).to.deep.equal(vkeys)
    const isQuorum = (...signed: string[]): boolean =>
      policy.isQuorum([
        { key: policy.logs[0]! },
        ...signed.map((name) => ({ key: policy.witnesses[names.indexOf(name)]!, time: 1 })),
      ])
    expect(isQuorum('X1', 'X3', 'Y2')).to.equal(true)
    expect(isQuorum('X1', 'X2', 'X3', 'Y1', 'Y2', 'Y3')).to.equal(true)
    expect(isQuorum('X1', 'X1', 'Y2')).to.equal(false)
    expect(isQuorum('X1', 'X2', 'X3')).to.equal(false)
    expect(isQuorum('X1', 'Y1', 'Y2', 'Y3')).to.equal(false)
    expect(isQuorum()).to.equal(false)
    const alien = keyOf(testWitness('X1.example').vkey)
    expect(policy.isQuorum([{ key: alien }])).to.equal(false)
  })

  it('needs no witness with quorum none, and one where it is named', () => {
    expect(valueOf(parsePolicy('quorum none\n')).isQuorum([])).to.equal(true)
    const single = valueOf(parsePolicy(`${witnesses[0]!}\nquorum X1\n`))
    expect(single.isQuorum([])).to.equal(false)
    expect(single.isQuorum([{ key: single.witnesses[0]! }])).to.equal(true)
  })

  it('is refused with its line when it is not by the letter', () => {
    const [x1, x2] = witnesses as [string, string]
    const bad: [string, number | undefined][] = [
      ['', undefined],
      [`log ${log}\n`, undefined],
      ['quorum none\nquorum none\n', 2],
      ['quorum X1\n', 1],
      ['quorum\n', 1],
      [`log ${log} url more\nquorum none\n`, 1],
      [`log ${log}\nlog ${log}\nquorum none\n`, 2],
      [`log ${vkeys[0]!}\nquorum none\n`, 1],
      [`witness W ${log}\nquorum none\n`, 1],
      [`witness none ${vkeys[0]!}\nquorum none\n`, 1],
      [`${x1}\n${x1}\nquorum none\n`, 2],
      [`${x1}\nwitness X9 ${vkeys[0]!}\nquorum none\n`, 2],
      [`${x1}\n${x2}\ngroup G 3 X1 X2\nquorum G\n`, 3],
      [`${x1}\n${x2}\ngroup G 0 X1 X2\nquorum G\n`, 3],
      [`${x1}\ngroup G 01 X1\nquorum G\n`, 2],
      [`${x1}\ngroup G all\nquorum none\n`, 2],
      [`${x1}\ngroup G any X1 X1\nquorum G\n`, 2],
      [`${x1}\ngroup G any X1\ngroup H any X1\nquorum H\n`, 3],
      [`group G any X1\n${x1}\nquorum G\n`, 1],
      [`${x1}\ngroup X1 any X1\nquorum X1\n`, 2],
      [`group G any none\nquorum G\n`, 1],
      ['quorum none\r\n', 1],
      ['trust everyone\nquorum none\n', 1],
      [`#${'x'.repeat(64 * 1024)}\nquorum none\n`, undefined],
    ]
    for (const [text, line] of bad) {
      const { problem } = parsePolicy(text)
      expect(problem, text.slice(0, 80)).to.be.a('string')
      if (line !== undefined) expect(problem).to.match(new RegExp(`^line ${line} `))
    }
  })
})
