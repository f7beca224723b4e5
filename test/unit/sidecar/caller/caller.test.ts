/** How many lookups may wait: sockets and table are made up, so that many users can call at one moment. */
import { closeSync, fstatSync, openSync } from 'node:fs'
import type { Socket } from 'node:net'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { isRefusal } from '../../../../shared/reasons.ts'
import {
  createCallers,
  MAX_WAITING,
  MAX_WAITING_PER_UID,
} from '../../../../sidecar/caller/caller.ts'
import type { Callers } from '../../../../sidecar/caller/caller.ts'
import { createExeHashes } from '../../../../sidecar/caller/exe-hash.ts'
import { TCP_STATE } from '../../../../sidecar/caller/socket-table.ts'
import type { SocketTable } from '../../../../sidecar/caller/socket-table.ts'
import { makeProcFixture } from '../../../support/proc-fixture.ts'
import type { ProcFixture } from '../../../support/proc-fixture.ts'

const BUSY = 'attribution_busy'

describe('waiting lookups', () => {
  let proc: ProcFixture
  let file = 0
  let callers: Callers
  /** Whether the user of a connection is told when it is accepted. */
  let told = false

  beforeEach(() => {
    proc = makeProcFixture()
    proc.write('sys/kernel/random/boot_id', '0a81ccdf-2c16-46ff-a1a9-8a2a2e0b5a3f\n')
    file = openSync('/dev/null', 'r')
  })
  afterEach(() => {
    callers.close()
    closeSync(file)
    proc.delete()
  })

  /** The client's port is the number of its user, and of its socket. */
  function createWith(perConnection: boolean): void {
    told = perConnection
    const own = { inode: fstatSync(file).ino, uid: 0, state: TCP_STATE.established }
    const table: SocketTable = {
      perConnection,
      find: (connections) =>
        connections.map(({ client: { port } }) => ({
          client: { inode: port, uid: port, state: TCP_STATE.established },
          own,
        })),
    }
    callers = createCallers({
      procRoot: proc.root,
      table,
      hashes: createExeHashes(),
      unreadable: 'ignore',
      level: () => ({ kind: 'process' }),
      now: () => performance.now(),
    })
  }

  /** What so many of this user come to, all asked at one moment, before any search can begin. */
  function ask(count: number, uid: number): Promise<string>[] {
    return Array.from({ length: count }, async () => {
      const ends = { remoteAddress: '127.0.0.1', localAddress: '127.0.0.1', localPort: 8001 }
      const socket = { ...ends, remotePort: uid, _handle: { fd: file } } as unknown as Socket
      expect(callers.accept(socket)).to.deep.equal({ uid: told ? uid : undefined })
      const answer = await callers.identify(socket)
      return isRefusal(answer) ? answer.refused : answer.verdict
    })
  }

  it('are refused beyond a number for each user, others are not, and the same user later is not', async () => {
    createWith(true)
    const flood = ask(MAX_WAITING_PER_UID + 3, 1001)
    const other = ask(1, 1002)
    const answers = await Promise.all(flood)
    expect(answers.slice(MAX_WAITING_PER_UID)).to.deep.equal(Array(3).fill(BUSY))
    expect(answers.filter((answer) => answer === BUSY)).to.have.length(3)
    expect(await Promise.all(other)).to.deep.equal(['unidentified'])
    expect(await Promise.all(ask(1, 1001))).to.deep.equal(['unidentified'])
  })

  it('are refused beyond a number altogether', async () => {
    createWith(true)
    const users = MAX_WAITING / MAX_WAITING_PER_UID
    const full = Array.from({ length: users }, (_, at) => ask(MAX_WAITING_PER_UID, 1001 + at))
    const more = ask(2, 2000)
    expect(await Promise.all(more)).to.deep.equal([BUSY, BUSY])
    expect(await Promise.all(full.flat())).not.to.contain(BUSY)
    expect(await Promise.all(ask(1, 2000))).to.deep.equal(['unidentified'])
  })

  it('are counted altogether only, where the table would have to be read for their users', async () => {
    createWith(false)
    const all = await Promise.all(ask(MAX_WAITING + 2, 1001))
    expect(all.filter((answer) => answer === BUSY)).to.have.length(2)
  })
})
