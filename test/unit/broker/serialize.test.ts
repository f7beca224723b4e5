import { expect } from 'chai'
import { describe, it } from 'mocha'
import { MAX_ENTRY_BYTES } from '../../../broker/ledger/entry.ts'
import type { Entry } from '../../../broker/ledger/entry.ts'
import { formatMicros, serializeEntry } from '../../../broker/ledger/serialize.ts'
import { TAG, intent } from '../../support/entries.ts'

const TIME_US = 1_767_323_045_678_901

function textOf(entry: Entry): string {
  return new TextDecoder('utf-8', { fatal: true }).decode(serializeEntry(entry, TIME_US))
}

function decoded(entry: Entry): Record<string, Record<string, unknown>> {
  return JSON.parse(textOf(entry)) as Record<string, Record<string, unknown>>
}

describe('the bytes of a ledger entry', () => {
  it('are exactly these, so that a change of the format is noticed', () => {
    const entry: Entry = {
      kind: 'system',
      event: 'audit_read',
      actor: 'carol',
      detail: { returned: 2, query: '{"a":1}' },
    }
    expect(textOf(entry)).to.equal(
      '{"actor":"carol","detail":{"query":"{\\"a\\":1}","returned":2},"event":"audit_read",' +
        '"kind":"system","time":"2026-01-02T03:04:05.678901Z","v":1}',
    )
  })

  it('do not depend on the order in which the entry was built', () => {
    const entry = intent({ requestId: 'one' })
    const reversed = Object.fromEntries(Object.entries(entry).reverse()) as unknown as Entry
    expect(textOf(reversed)).to.equal(textOf(entry))
  })

  it('leave out what is undefined, and hold everything else', () => {
    const entry = intent()
    expect(decoded({ ...entry, approval: undefined } as unknown as Entry)).to.deep.equal({
      ...{ v: 1, time: formatMicros(TIME_US) },
      ...entry,
    })
  })

  it('are valid UTF-8 even where a name is not', () => {
    expect(decoded(intent({ agent: 'a\ud800b' }))['agent']).to.equal('a\ufffdb')
  })

  const long = 'ü'.repeat(200_000)
  const hostile = '\u0001'.repeat(200_000)
  const oversized: readonly [
    string,
    Entry,
    (entry: Record<string, Record<string, unknown>>) => unknown,
  ][] = [
    ['a path', intent({ request: { path: long } }), (entry) => entry['request']?.['path']],
    [
      'a query of control characters',
      intent({ request: { query: hostile } }),
      (entry) => entry['request']?.['query'],
    ],
    [
      'an explanation',
      intent({ decision: { explanation: long } }),
      (entry) => entry['decision']?.['explanation'],
    ],
    [
      'a declared command',
      intent({ tag: { ...TAG, declared: { command: long } } }),
      (entry) => (entry['tag']?.['declared'] as Record<string, unknown>)['command'],
    ],
    [
      'an agent’s name, and everything else',
      intent({
        agent: hostile,
        request: { path: hostile, query: hostile, userAgent: hostile, contentType: hostile },
      }),
      (entry) => entry['agent'],
    ],
  ]
  for (const [what, entry, read] of oversized) {
    it(`stay within the limit when ${what} is too long, and say what was cut`, () => {
      const bytes = serializeEntry(entry, TIME_US)
      expect(bytes.length).to.be.at.most(MAX_ENTRY_BYTES)
      expect(read(decoded(entry))).to.match(/…\[cut: \d+ characters\]$/)
      expect(decoded(entry)['requestId']).to.equal((entry as { requestId: string }).requestId)
    })
  }

  it('stay within the limit when a list is too long, and say how much was cut', () => {
    const rules = Array.from({ length: 20_000 }, (_, i) => `rule-${i}`)
    const entry = intent({ decision: { rules } })
    expect(serializeEntry(entry, TIME_US).length).to.be.at.most(MAX_ENTRY_BYTES)
    expect((decoded(entry)['decision']?.['rules'] as string[]).at(-1)).to.match(
      /^…\[cut: \d+ items\]$/,
    )
  })

  it('keep the longest texts that a tag may carry whole', () => {
    const text = 'é'.repeat(512)
    const ancestors = Array.from({ length: 16 }, (_, i) => ({
      pid: i + 1,
      startTicks: '1',
      exe: text,
      containerId: text,
    }))
    const tag = { ...TAG, verified: { ...TAG.verified!, ancestors }, declared: { command: text } }
    expect(decoded(intent({ tag }))['tag']).to.deep.equal(tag)
  })
})
