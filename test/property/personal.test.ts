/** What must hold of any entry: people are hidden whole, come back whole, and erasing them changes no byte. */
import { createHash, randomBytes } from 'node:crypto'
import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import type { Entry, IntentEntry } from '../../broker/ledger/entry.ts'
import { createPseudonyms, hidePersonal, showPersonal } from '../../broker/ledger/personal.ts'
import { serializeEntry } from '../../broker/ledger/serialize.ts'
import { intent } from '../support/entries.ts'

const TIME_US = 1_790_000_000_000_000

/** Long and odd enough to stand in an entry for no other reason; some look like a pseudonym, or like a prefix of ours. */
const person = fc
  .tuple(
    fc.constantFrom('', 'sso:', 'personal:', 'nestgate:', 'nestgate:serviceaccount:', '"\\é'),
    fc.string({ minLength: 6, maxLength: 30, unit: 'grapheme' }),
  )
  .map(([prefix, text]) => `${prefix}zq${Buffer.from(text).toString('hex')}qz`)
const account = fc.constantFrom('system:serviceaccount:shop:agents', 'system:anonymous')
const anybody = fc.oneof(person, account, fc.constantFrom('broker', 'nestgate-broker'))
const optional = <T>(of: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.option(of, { nil: undefined })

const subject: fc.Arbitrary<IntentEntry['subject']> = fc.oneof(
  fc.record({ type: fc.constantFrom('person', 'oidc'), name: person }),
  fc.record({ type: fc.constant('serviceAccount' as const), name: account }),
)
const credential: fc.Arbitrary<NonNullable<IntentEntry['credential']>> = fc.oneof(
  fc.record({ mode: fc.constant('impersonation' as const), user: fc.oneof(person, account) }),
  fc.record({
    mode: fc.constant('issuer' as const),
    user: fc.oneof(
      person.map((name) => `nestgate:subject:${name}`),
      fc.constant('nestgate:serviceaccount:shop:agents'),
    ),
  }),
)
const approval = fc.record({
  ...{ id: fc.constant('R'), reviewer: anybody, reason: fc.string() },
  approvers: fc.array(anybody, { maxLength: 3 }),
})
const oidc = fc.record({
  ...{ issuer: fc.webUrl(), sub: person, name: person, groups: fc.array(fc.string()) },
})
const intents = fc
  .record({
    subject,
    credential: optional(credential),
    approval: optional(approval),
    oidc: optional(oidc),
  })
  .map((parts): Entry =>
    intent(Object.fromEntries(Object.entries(parts).filter(([, part]) => part !== undefined))),
  )
const query = fc
  .record(
    { subject: anybody, reviewer: anybody, verb: fc.string(), limit: fc.nat() },
    { requiredKeys: [] },
  )
  .map((conditions) => JSON.stringify(conditions))
const others: fc.Arbitrary<Entry> = fc.oneof(
  fc.record({
    ...{ kind: fc.constant('approval' as const), requestId: fc.string(), cluster: fc.string() },
    ...{
      from: fc.constant('PENDING'),
      to: fc.constant('DENIED'),
      actor: anybody,
      reason: fc.string(),
    },
  }),
  fc.record({
    ...{ kind: fc.constant('refusal' as const), requestId: fc.string(), cluster: fc.string() },
    ...{ subject, reason: fc.constant('path_ambiguous' as const), detail: fc.string() },
  }),
  fc.record({
    ...{ kind: fc.constant('system' as const), event: fc.constant('audit_read' as const) },
    ...{
      actor: anybody,
      detail: fc.record({ query: fc.oneof(query, fc.string()), subject: anybody }),
    },
  }),
)
const entries = fc.oneof(intents, others)

const decoded = (bytes: Uint8Array): Record<string, unknown> =>
  JSON.parse(Buffer.from(bytes).toString()) as Record<string, unknown>
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

describe('people in any entry', () => {
  it('are in no byte of it, come back, and can be erased without changing one', () => {
    fc.assert(
      fc.property(entries, (entry) => {
        const rows = new Map<string, string>()
        const pseudonyms = createPseudonyms({ random: (bytes) => randomBytes(bytes) })
        const hidden = hidePersonal(entry, (value) => {
          const { pseudonym, row } = pseudonyms.of(value)
          if (row !== undefined) rows.set(row.pseudonym, row.value)
          return pseudonym
        })
        const bytes = serializeEntry(hidden, TIME_US)
        for (const value of rows.values()) {
          // as it stands, and as it stands in JSON within JSON
          const once = JSON.stringify(value).slice(1, -1)
          const text = Buffer.from(bytes).toString()
          expect(text).not.to.include(once)
          expect(text).not.to.include(JSON.stringify(once).slice(1, -1))
        }
        expect(Buffer.from(bytes).toString()).not.to.match(/zq[0-9a-f]*qz/)

        const shown = showPersonal(decoded(bytes), (pseudonym) => rows.get(pseudonym))
        expect(shown).to.deep.equal(decoded(serializeEntry(entry, TIME_US)))

        rows.clear()
        expect(showPersonal(decoded(bytes), (pseudonym) => rows.get(pseudonym))).to.deep.equal(
          decoded(bytes),
        )
        expect(sha256(serializeEntry(hidden, TIME_US))).to.equal(sha256(bytes))
      }),
      { numRuns: 500 },
    )
  })
})
