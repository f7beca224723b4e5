import { expect } from 'chai'
import { describe, it } from 'mocha'
import fc from 'fast-check'
import { parseTarget } from '../../../shared/kubernetes/path.ts'
import { isRefusal } from '../../../shared/reasons.ts'

/** Each is read differently by at least two of Go's net/http, kube-apiserver's router and WHATWG URL parsers. */
const AMBIGUOUS = [
  '//',
  '//api/v1/pods',
  '/api//v1/pods',
  '/api/v1/pods//',
  '/api/v1/namespaces/n/pods/x/%2e%2e/%2e%2e/secrets/s',
  '/api/v1/namespaces/n/pods/../secrets',
  '/api/v1/./pods',
  '/api/v1/namespaces/n/pods/p%2Fexec',
  '/api/v1/namespaces/n/pods/p%2fexec',
  '/api/v1/namespaces/n/pods/p%5Cexec',
  '/api/v1/namespaces/n/pods/p\\exec',
  '/api/v1/namespaces/n/pods/p%00',
  '/api/v1/namespaces/n/pods/p\texec',
  '/api/v1/namespaces/n/pods/p%0d%0aX',
  '/api/v1/namespaces/n/pods/p;v=1',
  '/api/v1/namespaces/n/pods/p%3Bv',
  '/api/v1/namespaces/n/pods/p%252Fexec',
  '/api/v1/namespaces/n/pods/%zz',
  '/api/v1/namespaces/n/pods/%ff',
  '/api/v1/namespaces/n/pods/\u00e9',
  '/api/v1/pods?a;b=1',
  '/api/v1/pods?watch=%zz',
  '/api/v1/pods?a=1#b',
  'http://evil/api/v1/pods',
  'api/v1/pods',
  '',
  '*',
  `/${'a'.repeat(9000)}`,
]

describe('parseTarget', () => {
  for (const raw of AMBIGUOUS) {
    it(`refuses ${JSON.stringify(raw.slice(0, 60))}`, () => {
      expect(parseTarget(raw)).to.have.property('refused', 'path_ambiguous')
    })
  }

  it('keeps a plain path, and drops one trailing slash as kube-apiserver does', () => {
    expect(parseTarget('/api/v1/pods/?limit=5&x')).to.deep.equal({
      path: '/api/v1/pods',
      segments: ['api', 'v1', 'pods'],
      query: 'limit=5&x',
      parameters: [
        ['limit', '5'],
        ['x', ''],
      ],
    })
  })

  it('decodes what is escaped needlessly, and forwards the canonical form', () => {
    expect(parseTarget('/api/v1/namespaces/n/%70ods/a%20b')).to.include({
      path: '/api/v1/namespaces/n/pods/a%20b',
    })
  })

  it('reads plus and %20 in a query as a space, like Go', () => {
    const target = parseTarget('/x?command=ls+-l&command=%2Ftmp')
    if (isRefusal(target)) throw new Error(target.refused)
    expect(target.parameters).to.deep.equal([
      ['command', 'ls -l'],
      ['command', '/tmp'],
    ])
  })

  it('reads its own canonical form as itself, whatever it accepted', () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: 'binary', maxLength: 12 }), { maxLength: 8 }),
        (parts) => {
          const first = parseTarget(
            `/${parts.map((part) => encodeURIComponent(part.replaceAll(/[\ud800-\udfff]/g, '?'))).join('/')}`,
          )
          if (isRefusal(first)) return
          const again = parseTarget(first.path)
          if (isRefusal(again)) throw new Error(`${first.path} is refused the second time`)
          expect(again.segments).to.deep.equal(first.segments)
          expect(again.path).to.equal(first.path)
        },
      ),
    )
  })

  it('accepts no byte string in which a WHATWG parser finds another path', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme-ascii', maxLength: 40 }), (text) => {
        const raw = `/${text}`
        const target = parseTarget(raw)
        if (isRefusal(target)) return
        const whatwg = new URL(raw, 'http://host')
        expect(whatwg.host).to.equal('host')
        expect(decodeURIComponent(whatwg.pathname).replace(/(.)\/$/, '$1')).to.equal(
          `/${target.segments.join('/')}`,
        )
      }),
      { numRuns: 2000 },
    )
  })
})
