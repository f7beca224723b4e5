/** People in a real store: hidden in the bytes, shown to readers, found by name, and erased without changing a byte. */
import { expect } from 'chai'
import { readFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { erasedEntry } from '../../broker/api/erasure-routes.ts'
import type { Store } from '../../broker/store/store.ts'
import { intent, pending } from '../support/entries.ts'
import { newFile, open } from '../support/sqlite-store.ts'

const ASKED = intent({
  subject: { type: 'oidc', name: 'sso:alice' },
  oidc: { issuer: 'https://sso', sub: 'sub-of-alice', name: 'sso:alice', groups: ['devs'] },
  approval: { id: 'R', reviewer: 'carol', approvers: ['carol'], reason: 'fine' },
})

describe('people in the store', () => {
  let store: Store
  let file: string
  let remove: () => void
  beforeEach(async () => {
    ;({ file, remove } = newFile())
    store = await open(file)
  })
  afterEach(async () => {
    await store.close()
    remove()
  })

  const texts = async (): Promise<readonly string[]> =>
    (await store.leaves(0, 100)).map(({ bytes }) => Buffer.from(bytes).toString())

  it('are in no byte of an entry, and found and shown by their names', async () => {
    await Promise.all([1, 2, 3].map(() => store.append([ASKED])))
    for (const text of await texts()) expect(text).not.to.match(/alice|carol/)
    for (const filter of [{ subject: 'sso:alice' }, { reviewer: 'carol' }]) {
      const found = await store.events(filter, 10)
      expect(found).to.have.length(3)
      for (const { entry } of found) expect(entry).to.deep.include({ ...ASKED })
    }
  })

  it('are in no byte of the file after an erasure and a restart', async () => {
    const names = Array.from({ length: 200 }, (_, index) => `sso:person-${index}-erased`)
    await Promise.all(
      names.map((name) => store.append([intent({ subject: { type: 'oidc', name } })])),
    )
    await store.close()
    expect(readFileSync(file).includes('sso:person-77-erased')).to.equal(true)
    store = await open(file)
    for (const name of names) await store.erase(name, (found) => erasedEntry('root', 'left', found))
    await store.close()
    expect(/sso:person-\d+/.exec(readFileSync(file, 'latin1'))).to.equal(null)
    store = await open(file)
  })

  it('are forgotten by an erasure, which changes no byte and no other person', async () => {
    await store.append([ASKED])
    await store.append([ASKED])
    const [before, { root }] = [await texts(), await store.head()]
    const erased = await store.erase('sso:alice', (found) => erasedEntry('root', 'left', found))
    expect(erased).to.equal(1)
    expect((await texts()).slice(0, 2)).to.deep.equal(before)
    expect(await store.events({ subject: 'sso:alice' }, 10)).to.have.length(0)
    const found = await store.events({ reviewer: 'carol' }, 10)
    expect(found).to.have.length(2)
    for (const { entry } of found) expect(JSON.stringify(entry)).not.to.contain('sso:alice')
    const [said] = await store.events({ event: 'personal_erased', subject: 'root' }, 1)
    const pseudonym = (found[0]?.entry['subject'] as { name: string }).name
    expect(said?.entry).to.have.nested.include({ 'detail.pseudonyms': pseudonym })
    expect(Buffer.from((await store.head()).root).equals(root)).to.equal(false)
    // whoever comes back is somebody else
    await store.append([ASKED])
    expect(await store.events({ subject: 'sso:alice' }, 10)).to.have.length(1)
  })

  it('are known after a restart, and where a compare-and-set wrote nothing', async () => {
    const held = pending()
    expect(await store.hold(held, [])).to.equal(true)
    expect(await store.hold({ ...held, id: `${held.id}x` }, [ASKED])).to.equal(false)
    const change = { id: held.id, version: 7, to: 'DENIED', nowMs: 0, entry: ASKED } as const
    expect(await store.transition(change)).to.equal(undefined)
    await store.append([ASKED])
    await store.close()
    store = await open(file)
    await store.append([ASKED])
    expect(await store.events({ subject: 'sso:alice' }, 10)).to.have.length(2)
    expect(await store.erase('sso:alice', (found) => erasedEntry('root', 'left', found))).to.equal(
      2,
    )
    expect(await store.events({ subject: 'sso:alice' }, 10)).to.have.length(0)
  })
})
