import { expect } from 'chai'
import { describe, it } from 'mocha'
import type { WriteCall } from '../../../broker/store/calls.ts'
import { createStore } from '../../../broker/store/client.ts'
import { erasedEntry } from '../../../broker/api/erasure-routes.ts'

describe('an erasure', () => {
  it('finds what another connection was just writing', async () => {
    const written: WriteCall[] = []
    // the first look is before the commit of an entry that names the person, the second behind it
    const looks = [['personal:a'], ['personal:b'], ['personal:never']]
    const store = createStore(
      {
        write(call) {
          written.push(call)
          return Promise.resolve(1)
        },
        quick: () => Promise.resolve(looks.shift()),
        read: () => Promise.reject(new Error('not asked')),
        onChange: () => () => undefined,
        close: () => Promise.resolve(),
      },
      Date.now,
    )
    const count = await store.erase('alice', (found) => erasedEntry('root', 'left', found))
    expect(count).to.equal(2)
    expect(
      written.map((call) => (call.op === 'erase' ? call.pseudonyms : undefined)),
    ).to.deep.equal([['personal:a'], ['personal:b']])
  })
})
