/** Header blocks of SPDY/3: strict, bounded, and readable by zlib. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { constants, createDeflate, deflateSync, inflateSync } from 'node:zlib'
import {
  decodeHeaders,
  DICTIONARY,
  encodeHeaders,
  HeaderDeflater,
  HeaderInflater,
  MAX_HEADER_BLOCK_BYTES,
  MAX_HEADERS,
} from '../../../broker/sessions/spdy/header-block.ts'

type Result = ReadonlyMap<string, string> | string

function inflate(inflater: HeaderInflater, block: Buffer): Promise<Result> {
  return new Promise((resolve) => {
    inflater.inflate(block, resolve)
  })
}

function adler32(bytes: Buffer): number {
  let low = 1
  let high = 0
  for (const byte of bytes) {
    low = (low + byte) % 65521
    high = (high + low) % 65521
  }
  return high * 65536 + low
}

/** Blocks of one stream as spdystream's writer makes them: compressed, flushed behind each. */
async function compressed(...blocks: readonly Buffer[]): Promise<Buffer[]> {
  const deflate = createDeflate({ dictionary: DICTIONARY, level: 9 })
  const out: Buffer[] = []
  for (const block of blocks) {
    const parts: Buffer[] = []
    const keep = (part: Buffer): void => {
      parts.push(part)
    }
    deflate.on('data', keep)
    deflate.write(block)
    await new Promise<void>((resolve) => {
      deflate.flush(constants.Z_SYNC_FLUSH, resolve)
    })
    deflate.off('data', keep)
    out.push(Buffer.concat(parts))
  }
  deflate.destroy()
  return out
}

describe('header blocks of SPDY', () => {
  it('have the dictionary of the draft', () => {
    expect(DICTIONARY).to.have.length(1423)
    expect(adler32(DICTIONARY).toString(16)).to.equal('e3c6a7c2')
  })

  it('go out as stored blocks of one stream, each flushed', () => {
    const deflater = new HeaderDeflater()
    const first = deflater.deflate({ streamtype: 'stdin' })
    const second = deflater.deflate({})
    expect(first.subarray(0, 6).toString('hex')).to.equal('7820e3c6a7c2')
    expect(second.toString('hex')).to.equal('000400fbff' + '00000000' + '000000ffff')
    const plain = inflateSync(Buffer.concat([first, second]), {
      dictionary: DICTIONARY,
      finishFlush: constants.Z_SYNC_FLUSH,
    })
    expect(plain.toString('latin1')).to.equal(
      '\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05stdin' + '\0\0\0\0',
    )
  })

  it('come in as stored and as compressed blocks', async () => {
    const blocks = [{ streamtype: 'error', port: '80', requestid: '0' }, {}, { a: 'ÿ\0b' }]
    const deflater = new HeaderDeflater()
    const stored = blocks.map((headers) => deflater.deflate(headers))
    const small = await compressed(...blocks.map((headers) => encodeHeaders(headers)))
    for (const stream of [stored, small]) {
      const inflater = new HeaderInflater()
      for (const [index, block] of stream.entries()) {
        const headers = await inflate(inflater, block)
        expect(headers).to.deep.equal(new Map(Object.entries(blocks[index] ?? {})))
      }
      inflater.destroy()
    }
  })

  it('are as long as they may be, and no longer', async () => {
    const value = 'x'.repeat(MAX_HEADER_BLOCK_BYTES - 13)
    const inflater = new HeaderInflater()
    const headers = await inflate(inflater, new HeaderDeflater().deflate({ a: value }))
    expect(headers).to.deep.equal(new Map([['a', value]]))
    inflater.destroy()
    expect(() => new HeaderDeflater().deflate({ a: `${value}x` })).to.throw(RangeError)
    const [longer] = await compressed(encodeHeaders({ a: `${value}x` }))
    expect(longer?.length).to.be.below(200)
    const other = new HeaderInflater()
    expect(await inflate(other, longer ?? Buffer.of())).to.equal('a header block that is too long')
  })

  it('are no bomb: what is too long is not inflated to its end', async () => {
    const bomb = deflateSync(Buffer.alloc(64 * 1024 * 1024), { dictionary: DICTIONARY, level: 9 })
    const before = process.memoryUsage().arrayBuffers
    const inflater = new HeaderInflater()
    expect(await inflate(inflater, bomb)).to.equal('a header block that is too long')
    expect(process.memoryUsage().arrayBuffers - before).to.be.below(1024 * 1024)
  })

  it('are refused when they are no zlib stream of this dictionary', async () => {
    const plain = encodeHeaders({ a: 'b' })
    for (const block of [
      Buffer.from('rubbish'),
      deflateSync(plain, { dictionary: Buffer.from('another') }),
      Buffer.from('7820e3c6a7c2ff', 'hex'),
    ])
      expect(await inflate(new HeaderInflater(), block)).to.equal(
        'a header block that cannot be inflated',
      )
  })

  it('are refused when there is no dictionary to the end: a stream that ended has no further block', async () => {
    const inflater = new HeaderInflater()
    const whole = deflateSync(encodeHeaders({ a: 'b' }), { dictionary: DICTIONARY })
    expect(await inflate(inflater, whole)).to.deep.equal(new Map([['a', 'b']]))
    expect(await inflate(inflater, Buffer.from('000400fbff00000000000000ffff', 'hex'))).to.be.a(
      'string',
    )
    inflater.destroy()
  })

  const block = (count: number, ...texts: readonly string[]): Buffer => {
    const number = (value: number): Buffer => {
      const bytes = Buffer.alloc(4)
      bytes.writeUInt32BE(value)
      return bytes
    }
    return Buffer.concat([
      number(count),
      ...texts.flatMap((text) => [number(text.length), Buffer.from(text, 'latin1')]),
    ])
  }
  const refused: Readonly<Record<string, Buffer>> = {
    'no count': Buffer.alloc(3),
    'fewer than counted': block(2, 'a', 'b'),
    'more than counted': block(1, 'a', 'b', 'c', 'd'),
    'a byte too many': Buffer.concat([block(1, 'a', 'b'), Buffer.of(0)]),
    'a byte too few': block(1, 'a', 'bcd').subarray(0, -1),
    'a length of 4 GiB': Buffer.concat([block(1), Buffer.alloc(4, 255), Buffer.from('a')]),
    'an empty name': block(1, '', 'b'),
    'a name in upper case': block(1, 'Streamtype', 'b'),
    'a name with a space': block(1, 'a b', 'b'),
    'a name with a NUL': block(1, 'a\0b', 'b'),
    'a name twice': block(2, 'a', 'b', 'a', 'b'),
    'too many': block(
      MAX_HEADERS + 1,
      ...Array.from({ length: MAX_HEADERS + 1 }).flatMap((_, index) => [`n${index}`, '']),
    ),
    'a count of 4 GiB': Buffer.alloc(4, 255),
  }
  for (const [name, plain] of Object.entries(refused))
    it(`are refused: ${name}`, () => {
      expect(decodeHeaders(plain)).to.be.a('string')
    })

  it('hold as many headers as they may', () => {
    const names = Array.from({ length: MAX_HEADERS }, (_, index) => [`n${index}`, 'v'])
    expect(decodeHeaders(block(MAX_HEADERS, ...names.flat()))).to.have.property('size', MAX_HEADERS)
  })

  it('tell nobody once they are destroyed', async () => {
    const inflater = new HeaderInflater()
    let called = false
    inflater.inflate(new HeaderDeflater().deflate({}), () => {
      called = true
    })
    inflater.destroy()
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(called).to.equal(false)
  })
})
