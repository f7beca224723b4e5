import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { readableMappings } from '../../../sidecar/memory.ts'
import { loadNative } from '../../../sidecar/native.ts'

interface Line {
  readonly range: string
  readonly rights: string
  readonly path: string
  readonly anonymousKb: number
}

function smaps(...lines: readonly Line[]): string {
  return lines
    .map(
      ({ range, rights, path, anonymousKb }) =>
        `${range} ${rights} 00000000 fe:01 1234                       ${path}\nSize:               1024 kB\nRss:                 512 kB\nAnonymous:        ${String(anonymousKb).padStart(6)} kB\nVmFlags: rd ex mr mw me sd\n`,
    )
    .join('')
}

const TEXT = { range: '00400000-00c00000', rights: 'r-xp', path: '/usr/local/bin/node' } as const

describe('memory that can be read again', () => {
  it('is that of files which are only read', () => {
    const text = smaps({ ...TEXT, anonymousKb: 0 })
    expect(readableMappings(text)).to.deep.equal([{ start: 0x400000n, size: 0x800000n }])
  })

  for (const [name, line] of [
    ['can be written', { ...TEXT, rights: 'rw-p', anonymousKb: 0 }],
    ['was written, and is only read since', { ...TEXT, rights: 'r--p', anonymousKb: 8 }],
    ['is no file’s', { ...TEXT, path: '', anonymousKb: 0 }],
    ['is the kernel’s', { ...TEXT, path: '[vdso]', anonymousKb: 0 }],
    ['is the heap', { ...TEXT, path: '[heap]', anonymousKb: 0 }],
  ] as const)
    it(`is not what ${name}`, () => {
      expect(readableMappings(smaps(line))).to.deep.equal([])
    })

  it('goes back to the kernel, and this process goes on', () => {
    const residentFileKb = (): number =>
      Number(/^RssFile:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1])
    const native = loadNative()
    const mappings = readableMappings(readFileSync('/proc/self/smaps', 'latin1'))
    const before = residentFileKb()
    for (const { start, size } of mappings) native.dropPages(start, size)
    native.trimMalloc()
    expect(residentFileKb()).to.be.lessThan(before * 0.7)
    expect(JSON.parse('{"still": "here"}')).to.deep.equal({ still: 'here' })
  })
})
