import { Socket } from 'node:net'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { createAcceptedConnections } from '../../../../sidecar/caller/accepted.ts'
import type { ConnectionRows } from '../../../../sidecar/caller/socket-table.ts'

/** A socket with ends, connected to nothing. */
function endsOnly(): Socket {
  const ends = { remoteAddress: '127.0.0.1', remotePort: 2, localAddress: '127.0.0.1' }
  return Object.defineProperties(
    new Socket(),
    Object.fromEntries(
      Object.entries({ ...ends, localPort: 1 }).map(([name, value]) => [name, { value }]),
    ),
  )
}

describe('the client’s end of an accepted connection', () => {
  const answers: [string, () => readonly ConnectionRows[], boolean][] = [
    ['is held by a process', () => [{ client: { inode: 7, uid: 1, state: 1 } }], true],
    ['is held by none', () => [{ client: { inode: 0, uid: 0, state: 4 } }], false],
    ['is gone', () => [{}], false],
    [
      'cannot be asked for, so that nothing is known to have changed',
      () => {
        throw new Error('the kernel does not answer sock_diag')
      },
      true,
    ],
  ]
  for (const [name, find, isHeld] of answers)
    it(name, () => {
      const accepted = createAcceptedConnections({ perConnection: false, find })
      const socket = endsOnly()
      expect(accepted.note(socket)).to.deep.equal({ uid: undefined })
      expect(accepted.isHeld(socket)).to.equal(isHeld)
    })
})
