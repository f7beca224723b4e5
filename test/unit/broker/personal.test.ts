/** Names of people in ledger entries: which are hidden, how they come back, and which pseudonym a value has. */
import { randomBytes } from 'node:crypto'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import type { Entry, IntentEntry, SystemEntry } from '../../../broker/ledger/entry.ts'
import {
  createPseudonyms,
  hidePersonal,
  MAX_PERSONAL_LENGTH,
  pseudonymFor,
  pseudonymsIn,
  showPersonal,
} from '../../../broker/ledger/personal.ts'
import { intent, outcome } from '../../support/entries.ts'

const mark = (value: string): string => `<${value}>`
const random = (bytes: number): Uint8Array => randomBytes(bytes)
const direct = (credential?: IntentEntry['credential']): IntentEntry =>
  intent({
    subject: { type: 'oidc', name: 'sso:alice' },
    oidc: { issuer: 'https://sso', sub: 'a-1', name: 'sso:alice', groups: ['devs'] },
    approval: {
      id: 'R',
      reviewer: 'carol',
      approvers: ['carol', 'dave'],
      reason: 'as alice asked',
    },
    ...(credential === undefined ? {} : { credential }),
  })
const system = (actor: string, detail: SystemEntry['detail']): SystemEntry => ({
  kind: 'system',
  event: 'audit_read',
  actor,
  detail,
})

describe('hiding people in an entry', () => {
  it('replaces subject, token and approvers of an intent, and nothing else', () => {
    const given = direct({ mode: 'impersonation', user: 'sso:alice', groups: ['devs'] })
    expect(hidePersonal(given, mark)).to.deep.equal({
      ...given,
      subject: { type: 'oidc', name: '<sso:alice>' },
      oidc: { ...given.oidc, sub: '<a-1>', name: '<sso:alice>' },
      approval: { ...given.approval, reviewer: '<carol>', approvers: ['<carol>', '<dave>'] },
      credential: { mode: 'impersonation', user: '<sso:alice>', groups: ['devs'] },
    })
  })

  it('replaces the name behind the prefixes of our own tokens', () => {
    const given = direct({ mode: 'issuer', user: 'nestgate:subject:sso:alice' })
    const hidden = hidePersonal(given, mark)
    expect(hidden).to.have.nested.property('credential.user', 'nestgate:subject:<sso:alice>')
  })

  it('leaves service accounts, by either mode, and break-glass without a reviewer', () => {
    for (const credential of [
      { mode: 'impersonation', user: 'system:serviceaccount:shop:agents' },
      { mode: 'issuer', user: 'nestgate:serviceaccount:shop:agents' },
    ] as const) {
      const approval = { id: 'R', reviewer: '', reason: '', breakGlass: true } as const
      const given = intent({ credential, approval })
      expect(hidePersonal(given, mark)).to.deep.equal(given)
    }
    const given = outcome('R')
    expect(hidePersonal(given, mark)).to.equal(given)
  })

  it('replaces the subject of a refusal where it is no service account', () => {
    const refusal: Entry = {
      ...{ kind: 'refusal', requestId: 'R', cluster: 'main', reason: 'path_ambiguous' },
      ...{ detail: '', subject: { type: 'person', name: 'erin' } },
    }
    expect(hidePersonal(refusal, mark)).to.have.nested.property('subject.name', '<erin>')
  })

  it('takes every actor for a person but the broker, service accounts and pods', () => {
    const actors = ['erin', 'broker', 'nestgate-broker', 'system:serviceaccount:shop:agents', 'x:y']
    const of = (actor: string): unknown[] => [
      hidePersonal(system(actor, {}), mark),
      hidePersonal(
        {
          ...{ kind: 'approval', requestId: 'R', cluster: 'main', reason: 'erin knows' },
          ...{ from: 'PENDING', to: 'APPROVED', actor },
        },
        mark,
      ),
    ]
    const shown = actors.flatMap(of).map((entry) => (entry as { actor: string }).actor)
    expect(shown.filter((_, index) => index % 2 === 0)).to.deep.equal([
      '<erin>',
      ...actors.slice(1, 4),
      '<x:y>',
    ])
    expect(shown.filter((_, index) => index % 2 === 1)).to.deep.equal(
      shown.filter((_, index) => index % 2 === 0),
    )
    const pod: SystemEntry = { ...system('main/shop/web-0', {}), event: 'sidecar_registered' }
    expect(hidePersonal(pod, mark)).to.deep.equal(pod)
  })

  it('replaces people in what was searched for', () => {
    const query = JSON.stringify({ subject: 'erin', reviewer: 'carol', verb: 'get', limit: 3 })
    const hidden = hidePersonal(system('frank', { query, returned: 2, cluster: 'main' }), mark)
    expect(hidden).to.deep.include({
      actor: '<frank>',
      detail: {
        query: JSON.stringify({ subject: '<erin>', reviewer: '<carol>', verb: 'get', limit: 3 }),
        ...{ returned: 2, cluster: 'main' },
      },
    })
    const account = JSON.stringify({ subject: 'system:serviceaccount:shop:agents' })
    expect(hidePersonal(system('broker', { query: account }), mark)).to.deep.include({
      detail: { query: account },
    })
    for (const odd of ['no JSON, erin', '[1]', '7'])
      expect(hidePersonal(system('broker', { query: odd }), mark)).to.deep.include({
        detail: { query: odd },
      })
  })
})

describe('showing people in an entry', () => {
  const salt = new Uint8Array(16)
  const alice = pseudonymFor('alice', salt)
  const gone = pseudonymFor('gone', salt)
  const valueOf = (pseudonym: string): string | undefined =>
    pseudonym === alice ? 'alice' : undefined

  it('puts values back at the places of people only, and leaves what was erased', () => {
    const stored = { actor: alice, reason: alice, subject: { name: gone }, approval: 'odd' }
    const credential = { mode: 'issuer', user: `nestgate:subject:${alice}` }
    const detail = { query: JSON.stringify({ subject: alice }), pseudonyms: alice, reviewer: gone }
    expect(showPersonal({ ...stored, credential, detail }, valueOf)).to.deep.equal({
      ...{ ...stored, actor: 'alice' },
      credential: { mode: 'issuer', user: 'nestgate:subject:alice' },
      detail: { ...detail, query: JSON.stringify({ subject: 'alice' }) },
    })
    expect(pseudonymsIn({ ...stored, credential, detail })).to.have.members([alice, gone])
  })

  it('leaves what has another form', () => {
    for (const odd of [undefined, null, 3, 'text', [alice], { other: alice }]) {
      const entry = { subject: odd, oidc: odd, credential: odd, detail: odd }
      expect(showPersonal(entry, valueOf)).to.deep.equal(entry)
    }
    const near = { actor: `${alice}x`, oidc: { sub: alice.slice(1) } }
    expect(showPersonal(near, () => 'alice')).to.deep.equal(near)
  })
})

describe('pseudonyms', () => {
  const known = (value: string, pseudonyms: ReturnType<typeof createPseudonyms>): string => {
    const { pseudonym, row } = pseudonyms.of(value)
    if (row === undefined) throw new Error('no row')
    pseudonyms.settle([row], true)
    return pseudonym
  }

  it('are the hash of salt and value, with a salt of their own', () => {
    const pseudonyms = createPseudonyms({ random })
    const rows = ['alice', 'bob'].map((value) => pseudonyms.of(value).row)
    for (const row of rows) {
      expect(row?.salt).to.have.length(16)
      expect(row?.pseudonym).to.match(/^personal:[\w-]{43}$/)
      expect(row?.pseudonym).to.equal(pseudonymFor(row?.value ?? '', row?.salt ?? new Uint8Array()))
    }
    expect(rows[0]?.salt).not.to.deep.equal(rows[1]?.salt)
    // printf '\0…(16)alice' | sha256sum
    expect(pseudonymFor('alice', new Uint8Array(16))).to.equal(
      'personal:ILaV6udSpPvcgJ7LJe1zKDnBFIBVZlr4wkaZEruXsCk',
    )
  })

  it('come with their row until it is stored, and stay the same', () => {
    const pseudonyms = createPseudonyms({ random })
    const first = pseudonyms.of('alice')
    expect(pseudonyms.of('alice')).to.deep.equal(first)
    pseudonyms.settle(first.row === undefined ? [] : [first.row], true)
    expect(pseudonyms.of('alice')).to.deep.equal({ pseudonym: first.pseudonym })
  })

  it('are forgotten where their row was not stored', () => {
    const pseudonyms = createPseudonyms({ random })
    const { pseudonym, row } = pseudonyms.of('alice')
    pseudonyms.settle(row === undefined ? [] : [row], false)
    const second = pseudonyms.of('alice')
    expect(second.pseudonym).not.to.equal(pseudonym)
    expect(second.row).not.to.equal(undefined)
    // a transaction with the first row that ends only now
    pseudonyms.settle(row === undefined ? [] : [row], true)
    expect(pseudonyms.of('alice')).to.deep.equal(second)
  })

  it('are new after an erasure, also for what was on its way', () => {
    const pseudonyms = createPseudonyms({ random })
    const stored = [known('alice', pseudonyms), known('bob', pseudonyms)]
    pseudonyms.forget('alice')
    const { pseudonym, row } = pseudonyms.of('alice')
    expect(pseudonym).not.to.equal(stored[0])
    pseudonyms.forget('alice')
    pseudonyms.settle(row === undefined ? [] : [row], true)
    expect(pseudonyms.of('alice').pseudonym).not.to.equal(pseudonym)
    expect(pseudonyms.of('bob').row).to.equal(undefined)
    pseudonyms.forget()
    expect(pseudonyms.of('bob').pseudonym).not.to.equal(stored[1])
  })

  it('are looked up where they are not remembered, of which there are only so many', () => {
    const stored = new Map([['dave', 'personal:of-dave']])
    const lookup = (value: string): string | undefined => stored.get(value)
    expect(createPseudonyms({ lookup, random }).of('dave')).to.deep.equal({
      pseudonym: 'personal:of-dave',
    })
    const pseudonyms = createPseudonyms({ random, maxKnown: 2 })
    for (const value of ['alice', 'bob']) known(value, pseudonyms)
    pseudonyms.of('alice')
    known('carol', pseudonyms)
    const without = ['alice', 'bob', 'carol'].filter((v) => pseudonyms.of(v).row !== undefined)
    expect(without).to.deep.equal(['bob'])
  })

  it('are of whole characters, and of no more than so many', () => {
    const pseudonyms = createPseudonyms({ random })
    expect(pseudonyms.of('a\ud800').row?.value).to.equal('a\ufffd')
    const row = pseudonyms.of('x'.repeat(MAX_PERSONAL_LENGTH + 5)).row
    expect(row?.value).to.equal(`${'x'.repeat(MAX_PERSONAL_LENGTH)}…[cut: 5 characters]`)
  })
})
