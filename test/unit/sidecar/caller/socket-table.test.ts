import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { createProcSocketTable, TCP_STATE } from '../../../../sidecar/caller/socket-table.ts'
import type { Connection } from '../../../../sidecar/caller/socket-table.ts'
import { makeProcFixture } from '../../../support/proc-fixture.ts'
import type { ProcFixture } from '../../../support/proc-fixture.ts'

const HEAD =
  '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n'
const V4: Connection = {
  client: { address: '127.0.0.1', port: 40_000 },
  own: { address: '127.0.0.1', port: 8001 },
}
const CLIENT_ENDS = '0100007F:9C40 0100007F:1F41'
const OWN_ENDS = '0100007F:1F41 0100007F:9C40'

function row(ends: string, state: string, uid: number, inode: number): string {
  return `   0: ${ends} ${state} 00000000:00000000 00:00000000 00000000 ${String(uid).padStart(5)}        0 ${inode} 1 0000000000000000 20 4 30 10 -1\n`
}

describe('socket table', () => {
  let proc: ProcFixture

  beforeEach(() => {
    proc = makeProcFixture()
    proc.write('net/tcp6', HEAD)
  })
  afterEach(() => {
    proc.delete()
  })

  function find(
    connection: Connection,
  ): ReturnType<ReturnType<typeof createProcSocketTable>['find']>[number] {
    return createProcSocketTable(proc.root).find([connection])[0] ?? {}
  }

  it('reads both rows of a connection', () => {
    proc.write('net/tcp', HEAD + row(OWN_ENDS, '01', 0, 5) + row(CLIENT_ENDS, '01', 1000, 6))
    expect(find(V4)).to.deep.equal({
      own: { state: TCP_STATE.established, uid: 0, inode: 5 },
      client: { state: TCP_STATE.established, uid: 1000, inode: 6 },
    })
  })

  it('takes no row that shares only one end', () => {
    proc.write(
      'net/tcp',
      HEAD +
        row('0100007F:9C40 0100007F:1F42', '01', 0, 6) +
        row('0200007F:9C40 0100007F:1F41', '01', 0, 7),
    )
    expect(find(V4)).to.deep.equal({})
  })

  it('finds a client that used an IPv6 socket', () => {
    proc.write('net/tcp', HEAD + row(OWN_ENDS, '01', 0, 5))
    const mapped = '0000000000000000FFFF00000100007F'
    proc.write('net/tcp6', HEAD + row(`${mapped}:9C40 ${mapped}:1F41`, '01', 9, 6))
    expect(find(V4).client?.inode).to.equal(6)
  })

  it('finds a connection over ::1', () => {
    proc.write('net/tcp', HEAD)
    const loopback = '00000000000000000000000001000000'
    proc.write('net/tcp6', HEAD + row(`${loopback}:9C40 ${loopback}:1F41`, '01', 9, 6))
    const connection = {
      client: { address: '::1', port: 40_000 },
      own: { address: '::1', port: 8001 },
    }
    expect(find(connection).client?.inode).to.equal(6)
  })

  it('has no answer where the table changed while it was read', () => {
    proc.write('net/tcp', HEAD + row(CLIENT_ENDS, '01', 1, 6) + row(CLIENT_ENDS, '01', 1, 7))
    expect(find(V4).client).to.equal(undefined)
  })

  it('takes a row that was read twice', () => {
    proc.write('net/tcp', HEAD + row(CLIENT_ENDS, '01', 1, 6).repeat(2))
    expect(find(V4).client?.inode).to.equal(6)
  })

  for (const broken of [CLIENT_ENDS, `${CLIENT_ENDS} 01 x`, `${CLIENT_ENDS} ZZ 0:0 0:0 0 1 0 6`])
    it(`has no answer for a row cut to ${JSON.stringify(broken)}`, () => {
      proc.write('net/tcp', `${HEAD}   0: ${broken} `)
      expect(find(V4).client).to.equal(undefined)
    })

  it('goes without IPv6 where the kernel has none', () => {
    proc.write('net/tcp', HEAD + row(CLIENT_ENDS, '01', 1, 6))
    proc.remove('net/tcp6')
    expect(find(V4).client?.inode).to.equal(6)
  })
})
