/** The table of detectors: what each finds, and what none may. */
import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import {
  MAX_HELD_BYTES,
  createTextMasker,
  maskArguments,
  maskText,
} from '../../../../broker/masking/detectors/masker.ts'
import { reachOfForm } from '../../../../broker/masking/detectors/matcher.ts'
import { DETECTORS } from '../../../../broker/masking/detectors/table.ts'
import { Scanner } from '../../../../broker/masking/detectors/scan.ts'
import { DASHES, characters } from '../../../support/fake-secrets.ts'
import { HARMLESS, SECRETS } from './cases.ts'

/** The text without marks, and as it is to come out. */
function expected(marked: string): { text: string; masked: string } {
  const text = marked.replaceAll(/<<|>>/g, '')
  const masked = marked.replaceAll(/<<(.*?)>>/gs, (_, secret: string) =>
    '*'.repeat(Buffer.byteLength(secret)),
  )
  return { text, masked }
}

describe('the detectors', () => {
  for (const [detector, marked] of SECRETS) {
    const { text, masked } = expected(marked)
    it(`${detector}: ${JSON.stringify(masked).slice(0, 90)}`, () => {
      expect(maskText(text)).to.deep.equal({ text: masked, detectors: [detector] })
    })
  }

  for (const text of HARMLESS)
    it(`nothing: ${JSON.stringify(text).slice(0, 90)}`, () => {
      expect(maskText(text)).to.deep.equal({ text, detectors: [] })
    })

  it('are each shown by a case', () => {
    const shown = new Set(SECRETS.map(([detector]) => detector))
    expect([...shown].sort()).to.deep.equal(DETECTORS.map(({ id }) => id).sort())
  })

  it('need no more bytes than a masker may keep back', () => {
    for (const { keywords, lead = [], forms } of DETECTORS)
      for (const form of forms) {
        const longest = Math.max(...keywords.map((keyword) => keyword.length))
        // twice: something may be found between a keyword and its secret
        expect(2 * (longest + reachOfForm(lead, form))).to.be.at.most(MAX_HELD_BYTES)
      }
  })

  it('go on behind the bytes that are there only with secrets of three bytes and more', () => {
    for (const { id, forms } of DETECTORS)
      for (const { secret, then } of forms)
        if (then === undefined) expect(secret.min, id).to.be.at.least(3)
  })

  it('find nothing in what is printed without secrets', () => {
    for (const name of ['pods.yaml', 'stack-trace.txt', 'log.txt']) {
      const text = readFileSync(
        new URL(`../../../vectors/masking/${name}`, import.meta.url),
        'utf8',
      )
      expect(maskText(text), name).to.deep.equal({ text, detectors: [] })
    }
  })
})

describe('a scanner', () => {
  it('leaves a dash that may begin the end of a key undecided', () => {
    const scanner = new Scanner(DETECTORS.filter(({ id }) => id === 'private-key'))
    const bytes = Buffer.from(`${DASHES}BEGIN PRIVATE KEY${DASHES}\nAAAABBBBCCCC-`)
    const scanned = { bytes, context: Buffer.alloc(0), from: 0, ending: 'more' } as const
    const { hold, opens } = scanner.scan(scanned)
    expect(hold).to.equal(bytes.length - 1)
    expect(opens).to.have.length(1)
  })
})

describe('maskArguments', () => {
  for (const [words, masked] of [
    [
      ['mysql', '-psecret'],
      ['mysql', '-p******'],
    ],
    [
      ['env', 'PGPASSWORD=hunter2', 'psql'],
      ['env', 'PGPASSWORD=*******', 'psql'],
    ],
    [
      ['x', '--token=abcdefgh'],
      ['x', '--token=********'],
    ],
    [
      ['x', '--password', 'word', 'y'],
      ['x', '--password', '****', 'y'],
    ],
    [
      ['sh', '-c', 'PASSWORD=hunter2 run it'],
      ['sh', '-c', 'PASSWORD=******* run it'],
    ],
    [
      ['echo', 'ünï', '--token', 'ü'],
      ['echo', 'ünï', '--token', '**'],
    ],
    [
      ['ls', '-la', ''],
      ['ls', '-la', ''],
    ],
    [[], []],
  ] as const)
    it(words.join(' '), () => {
      expect(maskArguments(words)).to.deep.equal(masked)
    })
})

describe('a masker', () => {
  it('hands on the same bytes, not copies, where there is nothing', () => {
    const masker = createTextMasker()
    const piece = Buffer.from('nothing to see here\n')
    const { bytes, regions } = masker.push(piece)
    expect(bytes.buffer).to.equal(piece.buffer)
    expect(bytes.byteOffset).to.equal(piece.byteOffset)
    expect(bytes.equals(piece)).to.equal(true)
    expect(regions).to.deep.equal([])
    expect(masker.held).to.equal(0)
  })

  it('leaves the piece of its caller as it is', () => {
    const piece = Buffer.from('password=hunter2\n')
    createTextMasker().push(piece)
    expect(piece.toString()).to.equal('password=hunter2\n')
  })

  it('keeps nothing of the piece, which its caller writes over', () => {
    const masker = createTextMasker()
    const piece = Buffer.from('x passwor')
    masker.push(piece)
    piece.fill(0x7a)
    const rest = masker.push(Buffer.from('d=hunter2\n'))
    expect(rest.bytes.toString()).to.equal('password=*******\n')
  })

  it('masks what follows a flush within a secret, its keyword, or its head', () => {
    const secret = characters(36)
    for (const [text, masked] of [
      ['password=hunter2hunter\n', 'password=*************\n'],
      [`x ghp_${secret} y`, `x ghp_${'*'.repeat(36)} y`],
      ['{"password": "abc def ghi"}', '{"password": "***********"}'],
    ] as const)
      for (let at = 0; at <= text.length; at++) {
        const masker = createTextMasker()
        const pieces = [
          masker.push(Buffer.from(text.slice(0, at))),
          masker.flush(),
          masker.push(Buffer.from(text.slice(at))),
          masker.flush(),
        ]
        expect(Buffer.concat(pieces.map(({ bytes }) => bytes)).toString(), `at ${at}`).to.equal(
          masked,
        )
      }
  })

  it('masks a key whose lines come one by one, each flushed', () => {
    const masker = createTextMasker()
    const lines = ['-----BEGIN RSA ', 'PRIVATE KEY-----\n', 'AAAABBBB\n', 'CCCC-', '----END RSA\n']
    const out = lines.flatMap((line) => [masker.push(Buffer.from(line)), masker.flush()])
    expect(Buffer.concat(out.map(({ bytes }) => bytes)).toString()).to.equal(
      '-----BEGIN RSA PRIVATE KEY-----\n********\n****-----END RSA\n',
    )
  })

  it('does not let one keyword hide the rest of a stream', () => {
    const text = `password=${'a'.repeat(10_000)}`
    const { text: masked } = maskText(text)
    expect(masked.endsWith('aaa')).to.equal(true)
    expect(masked.match(/\*/g)).to.have.length(4096)
  })

  it('takes time in proportion to what is hostile, too', () => {
    const keywords = DETECTORS.flatMap((detector) => detector.keywords)
    const hostile = [
      keywords.join(''),
      keywords.join(' '),
      ...['token ', 'password=', 'mysql -', '://a:', 'eyJ', 'eyJ.', '-BEGIN ', ' login a', '.$6$'],
      `${'a'.repeat(4000)}password=`,
    ]
    for (const text of hostile) {
      const bytes = Buffer.from(text.repeat(Math.ceil((1 << 20) / text.length)))
      const masker = createTextMasker()
      const before = process.cpuUsage().user
      for (let at = 0; at < bytes.length; at += 8192) masker.push(bytes.subarray(at, at + 8192))
      masker.flush()
      // microseconds for a MiB: a tenth of the pace that was measured, and a thousandth of what backtracking would take
      expect(process.cpuUsage().user - before, text.slice(0, 40)).to.be.below(1_000_000)
    }
  })
})
