import { expect } from 'chai'
import { describe, it } from 'mocha'
import {
  exportQuerySchema,
  eventsQuerySchema,
  makeCursor,
  readEventsQuery,
  readExportQuery,
  readWatchQuery,
  watchQuerySchema,
} from '../../../broker/audit/query.ts'
import { AUDIT_FILTERS } from '../../../shared/audit-filters.ts'

const read = (text: string): object => readEventsQuery(new URLSearchParams(text))

describe('a question about the ledger', () => {
  it('asks for the newest hundred when nothing is said', () => {
    expect(read('')).to.deep.equal({ filter: {}, limit: 100 })
  })

  it('takes every condition', () => {
    const text =
      'since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00%2B01:00&kind=system&event=audit_read&cluster=a&requestId=b&subject=c&agent=d&ancestor=d2&process=d3&podUid=e&exe=f&verb=g&action=exec&resource=pods/exec&namespace=h&name=i&effect=deny&reason=policy_denied&rule=j&reviewer=k&status=403&limit=1000'
    const expected = {
      kind: 'system',
      event: 'audit_read',
      cluster: 'a',
      requestId: 'b',
      subject: 'c',
      agent: 'd',
      ancestor: 'd2',
      process: 'd3',
      podUid: 'e',
      exe: 'f',
      verb: 'g',
      action: 'exec',
      resource: 'pods/exec',
      namespace: 'h',
      name: 'i',
      effect: 'deny',
      reason: 'policy_denied',
      rule: 'j',
      reviewer: 'k',
      status: 403,
    }
    const times = { sinceMs: Date.UTC(2026, 0, 1), untilMs: Date.UTC(2026, 0, 1, 23) }
    expect(read(text)).to.deep.equal({ filter: { ...expected, ...times }, limit: 1000 })
  })

  it('continues where a cursor says', () => {
    expect(read(`cursor=${makeCursor(0)}`)).to.include({ before: 0 })
    expect(read(`cursor=${makeCursor(123_456_789)}`)).to.include({ before: 123_456_789 })
  })

  for (const text of [
    'user=alice',
    'Agent=x',
    '__proto__=x',
    'agent=a&agent=b',
    'agent=',
    'ancestor=',
    'ancestor=a&ancestor=b',
    'ancestors=a',
    'agent[]=a',
    'agent[$ne]=a',
    'limit=0',
    'limit=1001',
    'limit=-1',
    'limit=1e3',
    'limit=',
    'limit=10&limit=10',
    'status=abc',
    'status=1000',
    'since=yesterday',
    'since=2026-01-01',
    'since=1767225600',
    'until=2026-13-01T00:00:00Z',
    'kind=INTENT',
    'effect=maybe',
    'event=',
    'event=audit read',
    'kind=intent&event=audit_read',
    'process=',
    'action=',
    'action=dance',
    'action=create pods',
    'reason=',
    'reason=toString',
    'reason=because',
    'since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z',
    'since=2026-01-02T00:00:00Z&until=2026-01-02T00:00:00Z',
    'after=1',
    'order=asc',
    'format=csv',
    'cursor=',
    'cursor=12',
    'cursor=%00',
    `cursor=${Buffer.from('2:5').toString('base64url')}`,
    `cursor=${Buffer.from('1:-5').toString('base64url')}`,
    `agent=${'x'.repeat(513)}`,
  ]) {
    it(`is refused rather than half understood: ${text.slice(0, 40)}`, () => {
      expect(read(text)).to.have.property('refused', 'query_invalid')
    })
  }

  it('is refused without repeating its values', () => {
    expect(JSON.stringify(read('status=secret-value'))).to.not.contain('secret-value')
  })

  it('knows the same conditions as the command and the documentation', () => {
    const names = AUDIT_FILTERS.map(({ name }) => name)
    const own = [
      [eventsQuerySchema, ['limit', 'cursor']],
      [watchQuerySchema, ['after']],
      [exportQuerySchema, ['format', 'from', 'to', 'after']],
    ] as const
    for (const [schema, more] of own)
      expect(Object.keys(schema.shape)).to.have.members([...names, ...more])
  })

  it('may be about what is to come', () => {
    expect(readWatchQuery(new URLSearchParams(''))).to.deep.equal({ filter: {} })
    const text = 'after=0&process=planner'
    expect(readWatchQuery(new URLSearchParams(text))).to.deep.equal({
      ...{ filter: { process: 'planner' }, after: 0 },
    })
    for (const bad of ['after=-1', 'after=', 'limit=1', 'cursor=x', 'after=1&after=2'])
      expect(readWatchQuery(new URLSearchParams(bad))).to.have.property('refused', 'query_invalid')
  })

  it('may be an export, which keeps the conditions as they were given', () => {
    const text = 'format=csv&from=5&to=9&since=2026-01-01T01:00:00%2B01:00&status=403'
    expect(readExportQuery(new URLSearchParams(text))).to.deep.equal({
      ...{ format: 'csv', from: 5, to: 9 },
      filter: { sinceMs: Date.UTC(2026, 0, 1), status: 403 },
      asked: { since: '2026-01-01T01:00:00+01:00', status: '403' },
    })
    expect(readExportQuery(new URLSearchParams('format=jsonl&from=5&to=9&after=8'))).to.include({
      after: 8,
    })
    for (const bad of [
      ...['', 'format=xml', 'format=csv&from=9&to=9', 'format=csv&limit=5'],
      ...['format=csv&from=5&to=9&after=6', 'format=jsonl&after=6', 'format=jsonl&from=1&after=6'],
      ...['format=jsonl&from=5&to=9&after=4', 'format=jsonl&from=5&to=9&after=9'],
    ])
      expect(readExportQuery(new URLSearchParams(bad))).to.have.property('refused', 'query_invalid')
  })
})
