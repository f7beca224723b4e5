/** Reading along in archives: what real programs write, what nobody should, and every split. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  linkSync,
  writeFileSync,
  truncateSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import fc from 'fast-check'
import { after, before, describe, it } from 'mocha'
import { MAX_PRELUDE_BYTES, tarStream, watchTar } from '../../../../broker/sessions/files/tar.ts'
import type { TarFile } from '../../../../broker/sessions/files/tar.ts'
import { archive, block, header, pax, padded } from '../../../support/tar.ts'

interface Seen {
  readonly files: readonly TarFile[]
  readonly plain: Buffer
}

/** What comes of a stream in these pieces. */
function watch(pieces: Iterable<Buffer>): Seen {
  const files: TarFile[] = []
  const watcher = watchTar((file) => files.push(file))
  const plain: Buffer[] = []
  for (const piece of pieces) {
    // what is kept may not be the caller's
    const lent = Buffer.from(piece)
    plain.push(...watcher.push(lent).map((part) => Buffer.from(part)))
    lent.fill(0xff)
  }
  plain.push(...watcher.end())
  return { files, plain: Buffer.concat(plain) }
}

function sha256(content: Buffer | string): string {
  return createHash('sha256').update(content).digest('hex')
}

const END = Buffer.alloc(1024)

/** Real programs that are there. */
describe('tar of real programs', () => {
  let folder: string
  const long = `${'d'.repeat(90)}/${'e'.repeat(90)}`

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'nestgate-tar-'))
    const at = (name: string): string => join(folder, name)
    writeFileSync(at('one.txt'), 'one\n', { mode: 0o640 })
    writeFileSync(at('empty'), '')
    writeFileSync(at('block'), Buffer.alloc(512, 1))
    writeFileSync(at('big'), Buffer.alloc(200_000, 7))
    writeFileSync(at('näme with blank'), 'x')
    mkdirSync(at('sub'))
    symlinkSync('../one.txt', at('sub/link'))
    linkSync(at('one.txt'), at('zhard'))
    mkdirSync(at(long), { recursive: true })
    writeFileSync(at(`${long}/file`), 'deep')
    execFileSync('mkfifo', [at('pipe')])
  })

  after(() => {
    rmSync(folder, { recursive: true })
  })

  const contents: readonly [string, Buffer][] = [
    ['one.txt', Buffer.from('one\n')],
    ['empty', Buffer.alloc(0)],
    ['block', Buffer.alloc(512, 1)],
    ['big', Buffer.alloc(200_000, 7)],
    ['näme with blank', Buffer.from('x')],
    [`${long}/file`, Buffer.from('deep')],
  ]

  const programs: readonly (readonly [string, ...string[]])[] = [
    ['tar', '--format=gnu', '-cf', '-'],
    ['tar', '--format=pax', '-cf', '-'],
    ['tar', '--format=posix', '--pax-option=exthdr.name=x', '-cf', '-'],
    ['busybox', 'tar', '-cf', '-'],
    ['bsdtar', '-cf', '-'],
    ['bsdtar', '--format=ustar', '-cf', '-'],
    ['bsdtar', '--format=gnutar', '-cf', '-'],
  ]
  for (const [program, ...words] of programs)
    it([program, ...words].join(' '), () => {
      const names = [
        'one.txt',
        'empty',
        'block',
        'big',
        'näme with blank',
        'sub',
        'zhard',
        'pipe',
        long,
      ]
      const bytes = execFileSync(program, [...words, '-C', folder, ...names], { maxBuffer: 1e8 })
      const { files, plain } = watch([bytes])
      expect(plain.length).to.equal(0)
      const byName = new Map(files.map((file) => [file.name.replace(/\/$/, ''), file]))
      for (const [name, content] of contents) {
        expect(byName.get(name)?.type, name).to.equal('file')
        expect(byName.get(name)?.size, name).to.equal(content.length)
        expect(byName.get(name)?.sha256, name).to.equal(sha256(content))
      }
      expect(byName.get('one.txt')?.mode).to.equal(0o640)
      expect(byName.get('sub')).to.include({ type: 'directory', size: 0 })
      expect(byName.get('sub/link')).to.include({ type: 'symlink', linkName: '../one.txt' })
      expect(byName.get('zhard')).to.include({ type: 'hardlink', linkName: 'one.txt' })
      expect(byName.get('pipe')).to.include({ type: 'fifo' })
      expect(byName.get('pipe')).not.to.have.property('sha256')
    })

  it('tells the parts of a sparse file that are stored', () => {
    writeFileSync(join(folder, 'sparse'), 'begin')
    truncateSync(join(folder, 'sparse'), 50_000_000)
    for (const format of ['gnu', 'pax']) {
      const words = [`--format=${format}`, '-S', '-cf', '-', '-C', folder, 'sparse', 'one.txt']
      const { files, plain } = watch([execFileSync('tar', words, { maxBuffer: 1e8 })])
      expect(plain.length).to.equal(0)
      expect(files.map(({ name, type }) => [name, type])).to.deep.equal([
        ['sparse', 'sparse'],
        ['one.txt', 'file'],
      ])
      expect(files[0]?.size).to.be.below(10_000)
    }
  })

  it('reads archives behind each other', () => {
    const one = execFileSync('tar', ['-cf', '-', '-C', folder, 'one.txt'])
    const { files, plain } = watch([one, one])
    expect(files.map(({ name }) => name)).to.deep.equal(['one.txt', 'one.txt'])
    expect(plain.length).to.equal(0)
  })
})

describe('watchTar', () => {
  const small = archive(
    header({ name: 'a', size: 3, mode: 0o644 }),
    padded('abc'),
    header({ name: 'L', flag: 'L', size: 121 }),
    padded(`${'n'.repeat(120)}\0`),
    header({ name: 'cut', size: 0 }),
    header({ name: 'x', flag: 'x', size: pax({ path: 'päth', size: '600' }).length }),
    padded(pax({ path: 'päth', size: '600' })),
    header({ name: 'p', size: 0 }),
    padded('p'.repeat(600)),
    header({ name: 'd/', flag: '5' }),
    header({ name: 'l', flag: '2', linkName: '/etc/passwd' }),
    header({ name: 'c', flag: '3' }),
    END,
  )

  it('reads each kind of member', () => {
    const { files, plain } = watch([small])
    expect(plain.length).to.equal(0)
    expect(files).to.deep.equal([
      { name: 'a', type: 'file', size: 3, mode: 0o644, sha256: sha256('abc') },
      { name: 'n'.repeat(120), type: 'file', size: 0, mode: 0, sha256: sha256('') },
      { name: 'päth', type: 'file', size: 600, mode: 0, sha256: sha256('p'.repeat(600)) },
      { name: 'd/', type: 'directory', size: 0, mode: 0 },
      { name: 'l', type: 'symlink', size: 0, mode: 0, linkName: '/etc/passwd' },
      { name: 'c', type: 'character-device', size: 0, mode: 0 },
    ])
  })

  it('reads the same of every split, and byte by byte', () => {
    const bytes = Buffer.concat([small, Buffer.from('tar: something went wrong\n')])
    const whole = watch([bytes])
    expect(whole.plain.toString()).to.equal('tar: something went wrong\n')
    for (let at = 0; at <= bytes.length; at++)
      expect(watch([bytes.subarray(0, at), bytes.subarray(at)]), `at ${at}`).to.deep.equal(whole)
    expect(watch(Array.from(bytes, (byte) => Buffer.of(byte)))).to.deep.equal(whole)
  })

  it('says at each end what had come', () => {
    for (let at = 0; at < small.length; at++) {
      const { files, plain } = watch([small.subarray(0, at)])
      const cut = files.filter(({ truncated }) => truncated)
      expect(cut.length, `at ${at}`).to.be.at.most(1)
      if (at > 512 && at < 515)
        expect(files).to.deep.equal([
          {
            ...{ name: 'a', type: 'file', size: at - 512, mode: 0o644 },
            ...{ sha256: sha256('abc'.slice(0, at - 512)), truncated: true },
          },
        ])
      // a header that is not whole is no archive, and recorded
      if (at > 0 && at < 512) expect(plain.equals(small.subarray(0, at))).to.equal(true)
    }
  })

  it('hands back all of what is no archive', () => {
    for (const text of [
      'x',
      'tar: /nothing: Cannot stat: No such file or directory\n',
      'y'.repeat(511),
      'y'.repeat(512),
      'y'.repeat(100_000),
      '\0'.repeat(10_240),
    ]) {
      const { files, plain } = watch([Buffer.from(text)])
      expect(files).to.deep.equal([])
      expect(plain.toString()).to.equal(text)
    }
  })

  it('hands back all from where an archive stops to be one', () => {
    const rest = Buffer.from(`${'secret output '.repeat(100)}\n`)
    const bytes = archive(header({ name: 'a', size: 3 }), padded('abc'), rest)
    const { files, plain } = watch([bytes])
    expect(files).to.have.length(1)
    expect(plain.equals(rest)).to.equal(true)
  })

  it('hands back names and records behind which no member comes', () => {
    const long = archive(header({ name: 'L', flag: 'L', size: 100 }), padded('n'.repeat(100)))
    for (const after of [Buffer.from('z'.repeat(600)), Buffer.alloc(0), END, Buffer.from('zz')])
      expect(watch([long, after]).plain.equals(Buffer.concat([long, after]))).to.equal(true)
  })

  it('hands back what says a name twice, more than a name, or too long a one', () => {
    const name = (text: string, flag = 'L'): Buffer[] => [
      header({ name: 'n', flag, size: text.length }),
      padded(text),
    ]
    const file = header({ name: 'a', size: 0 })
    const records = pax({ path: 'b' }).toString()
    for (const parts of [
      [...name('one\0'), ...name('two\0')],
      [...name(records, 'x'), ...name(records, 'x')],
      name('one\0and something hidden'),
      name(`${'n'.repeat(4097)}\0`),
      name(pax({ path: 'n'.repeat(4097) }).toString(), 'x'),
    ]) {
      const bytes = archive(...parts, file, END)
      const { files, plain } = watch([bytes])
      expect(files).to.deep.equal([])
      expect(plain.equals(bytes)).to.equal(true)
    }
    for (const kind of ['K', 'L']) {
      const { files } = watch([archive(...name('n'.repeat(4096), kind), file, END)])
      expect(files).to.have.length(1)
    }
  })

  it('drops zeros behind the end, whole blocks or not', () => {
    for (const more of [1, 511, 512, 513, 9000])
      expect(watch([small, Buffer.alloc(more)]).plain.length).to.equal(0)
  })

  it('hands back what stands in padding', () => {
    const hidden = Buffer.from(`abc${'hidden'.repeat(80)}`.padEnd(512, '\0'))
    const bytes = archive(
      header({ name: 'a', size: 3 }),
      hidden,
      header({ name: 'b', size: 0 }),
      END,
    )
    const { files, plain } = watch([bytes])
    expect(files.map(({ name }) => name)).to.deep.equal(['a', 'b'])
    expect(plain.equals(hidden.subarray(3))).to.equal(true)
  })

  it('drops no byte behind the end but zeros', () => {
    const end = Buffer.concat([small, Buffer.alloc(9000), Buffer.from('x'), Buffer.alloc(100)])
    const { plain } = watch([end])
    expect(plain.toString()).to.include('x')
    expect(plain.toString().replaceAll('\0', '')).to.equal('x')
  })

  it('shows global headers and records that nobody reads', () => {
    const records = pax({ comment: 'something hidden' })
    for (const [flag, type] of [
      ['g', 'global-header'],
      ['x', 'extended-header'],
    ] as const) {
      const bytes = archive(
        header({ name: 'records', flag, size: records.length }),
        padded(records),
        header({ name: 'a', size: 0 }),
        END,
      )
      const { files, plain } = watch([bytes])
      expect(plain.length).to.equal(0)
      expect(files[0]).to.deep.equal({
        ...{ name: 'records', type, size: records.length, sha256: sha256(records) },
      })
      expect(files[1]?.name).to.equal('a')
    }
  })

  it('applies a global path until it is taken back', () => {
    const common = pax({ size: '3' })
    const own = pax({ size: '' })
    const bytes = archive(
      header({ name: 'g', flag: 'g', size: common.length }),
      padded(common),
      header({ name: 'a', size: 0 }),
      padded('abc'),
      header({ name: 'x', flag: 'x', size: own.length }),
      padded(own),
      header({ name: 'b', size: 0 }),
      END,
    )
    const { files, plain } = watch([bytes])
    expect(plain.length).to.equal(0)
    expect(files.map(({ name, size }) => [name, size])).to.deep.equal([
      ['g', common.length],
      ['a', 3],
      ['b', 0],
    ])
  })

  it('reports names as they are', () => {
    for (const name of ['../../etc/passwd', '/abs', 'a\u001b[2Jb', 'tab\tline\n', 'ünï']) {
      const { files } = watch([archive(header({ name, size: 0 }), END)])
      expect(files[0]?.name).to.equal(name)
    }
  })

  it('takes sizes of 8 GiB and more without room for them', () => {
    const size = 8 * 2 ** 30
    const before = process.memoryUsage().arrayBuffers
    const files: TarFile[] = []
    const watcher = watchTar((file) => files.push(file))
    expect(watcher.push(header({ name: 'huge', size, base256: true }))).to.deep.equal([])
    const piece = Buffer.alloc(1 << 20)
    for (let count = 0; count < 8; count++) expect(watcher.push(piece)).to.deep.equal([])
    expect(process.memoryUsage().arrayBuffers - before).to.be.below(4 << 20)
    expect(watcher.end()).to.deep.equal([])
    expect(files).to.have.length(1)
    expect(files[0]).to.include({ name: 'huge', size: 8 << 20, truncated: true })
  })

  it('takes no header whose numbers are none', () => {
    const good = header({ name: 'a', size: 0 })
    const wrong: Buffer[] = [
      header({ name: 'a', size: 2 ** 60, base256: true }),
      header({ name: 'a', size: 0, sizeField: '0000000000x\0' }),
      header({ name: 'a', size: 0, sizeField: '-0000000001\0' }),
      header({
        name: 'a',
        size: 0,
        sizeField: '\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff',
      }),
    ]
    for (let at = 0; at < 512; at += 7) {
      const bad = Buffer.from(good)
      bad[at] = (bad[at] ?? 0) ^ 0x15
      wrong.push(bad)
    }
    for (const bytes of wrong) {
      const { files, plain } = watch([bytes, Buffer.from('rest')])
      expect(files).to.deep.equal([])
      expect(plain.equals(Buffer.concat([bytes, Buffer.from('rest')]))).to.equal(true)
    }
  })

  it('takes no records that are none, and none that are too long', () => {
    for (const text of [
      '',
      'x',
      '5 a=b\n\n',
      '6 a=b\n9 ',
      '99 a=b\n',
      '0 a=b\n',
      '6 aab\n',
      '06 a=b\n',
      '13 size=-100\n',
      '5 =b\n',
    ]) {
      const bytes = archive(
        header({ name: 'x', flag: 'x', size: text.length }),
        padded(text),
        header({ name: 'a', size: 0 }),
        END,
      )
      const { files, plain } = watch([bytes])
      if (text === '') expect(files.map(({ name }) => name)).to.deep.equal(['a'])
      else expect([files, plain.equals(bytes)], text).to.deep.equal([[], true])
    }
    const long = header({ name: 'x', flag: 'x', size: MAX_PRELUDE_BYTES + 1 })
    expect(watch([long]).plain.equals(long)).to.equal(true)
    const endless = archive(
      ...Array.from({ length: 2000 }, () => [
        header({ name: 'L', flag: 'L', size: 400 }),
        padded('n'.repeat(400)),
      ]).flat(),
    )
    expect(watch([endless]).plain.equals(endless)).to.equal(true)
  })

  it('accounts for every byte of anything', () => {
    const piece = fc.oneof(
      fc.constantFrom(
        header({ name: 'a', size: 3 }),
        header({ name: 'b', size: 700 }),
        header({ name: 'd/', flag: '5' }),
      ),
      fc.constantFrom(
        header({ name: 'L', flag: 'L', size: 5 }),
        header({ name: 'x', flag: 'x', size: 6 }),
      ),
      fc.constantFrom(
        padded('abc'),
        padded('6 a=b\n'),
        padded('name'),
        block('z'.repeat(512)),
        END,
      ),
      fc.uint8Array({ maxLength: 600 }).map((some) => Buffer.from(some)),
    )
    fc.assert(
      fc.property(
        fc.array(piece, { maxLength: 12 }),
        fc.array(fc.nat(), { maxLength: 8 }),
        (parts, cuts) => {
          const bytes = Buffer.concat(parts)
          const whole = watch([bytes])
          const places = cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b)
          const pieces = [0, ...places].map((from, index) =>
            bytes.subarray(from, places[index] ?? bytes.length),
          )
          expect(watch(pieces)).to.deep.equal(whole)
          // what is neither of a file nor handed back is headers, and padding of zeros
          const members = whole.files.filter(({ type }) => !type.endsWith('-header'))
          const content = members.reduce((sum, { size }) => sum + size, 0)
          expect(whole.plain.length + content).to.be.at.most(bytes.length)
          if (whole.files.length === 0) expect(whole.plain.equals(bytes)).to.equal(true)
        },
      ),
      { numRuns: 500 },
    )
  })
})

describe('tarStream', () => {
  for (const [command, stream] of [
    [['tar', 'cf', '-', 'x'], 'stdout'],
    [['tar', '-xmf', '-', '-C', '/tmp'], 'stdin'],
    [['tar', '--no-same-permissions', '--no-same-owner', '-xmf', '-'], 'stdin'],
    [['/bin/tar', '-cf', '-', '.'], 'stdout'],
    [['tar', '--create', '--file=-', '.'], 'stdout'],
    [['tar', '--extract'], 'stdin'],
    [['busybox', 'tar', 'c', '.'], 'stdout'],
    [['sh', '-c', 'cd /x && tar cf - . | cat'], 'stdout'],
    [['tar'], undefined],
    [['tar', '--version'], undefined],
    [['ls', '-xc'], undefined],
    [['start', 'xc'], undefined],
    [[], undefined],
  ] as const)
    it(`${command.join(' ')}: ${stream}`, () => {
      expect(tarStream(command)).to.equal(stream)
    })
})
