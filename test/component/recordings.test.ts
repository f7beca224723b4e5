/** Recordings: written, sealed, kept in ledger and store. */
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { followChain } from '../../shared/recording/chain.ts'
import { ENDED, facts, output, recordingWorld, segmentBytes, TERMS } from '../support/recordings.ts'
import type { RecordingWorld } from '../support/recordings.ts'

describe('recordings', () => {
  let world: RecordingWorld
  beforeEach(async () => {
    world = await recordingWorld()
  })
  afterEach(() => world.close())

  const entriesOf = async (id: string) =>
    (await world.store.events({ requestId: id }, 100)).map(({ entry }) => entry).reverse()
  async function* pieces(bytes: Buffer) {
    for (let at = 0; at < bytes.length; at += 1000)
      yield await Promise.resolve(bytes.subarray(at, at + 1000))
  }

  it('stand in the ledger before anything is written, and with their running hash at the end', async () => {
    const session = facts()
    const writer = await world.recordings.begin(session, TERMS)
    expect(await entriesOf(session.id)).to.have.nested.property('[0].event', 'started')
    writer.write(output('hello'))
    writer.write(output('x'.repeat(60_000)))
    await writer.end(ENDED)
    const [, ended] = await entriesOf(session.id)
    const sealed = segmentBytes(world.dataDir, session.id, '000000.seg')
    const chain = await followChain(session.id, pieces(sealed))
    if ('problem' in chain) throw new Error(chain.problem)
    expect(chain).to.include({ chunks: 1, bytes: writer.bytes, isComplete: true })
    expect(ended).to.have.property('event', 'ended')
    expect(ended)
      .to.have.property('detail')
      .that.includes({
        ...{ state: 'ended', exitCode: 0, runningSha256: chain.runningSha256, chunks: 1 },
      })
    expect(sealed.includes('hello')).to.equal(false)
  })
})
