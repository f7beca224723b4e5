/** Both readers of the kernel's TCP table, asked about the same real connections. */
import { fstatSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import type { AddressInfo, NetConnectOpts, Server, Socket } from 'node:net'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { createDiagSocketTable } from '../../../../sidecar/caller/sock-diag.ts'
import { createProcSocketTable, TCP_STATE } from '../../../../sidecar/caller/socket-table.ts'
import type { Connection, SocketTable } from '../../../../sidecar/caller/socket-table.ts'
import { loadNative } from '../../../../sidecar/native.ts'

function inodeOf(socket: object): number {
  return fstatSync((socket as { _handle: { fd: number } })._handle.fd).ino
}

describe('sidecar: the kernel’s TCP table', () => {
  const tables: [string, SocketTable][] = [
    ['sock_diag', createDiagSocketTable(loadNative().openDiagSocket())],
    ['/proc/net', createProcSocketTable('/proc')],
  ]
  let server: Server
  let port = 0
  const open: Socket[] = []

  before(async () => {
    server = createServer({ allowHalfOpen: true })
    await new Promise<void>((resolve) => server.listen(0, '::', resolve))
    port = (server.address() as AddressInfo).port
  })
  after(async () => {
    for (const socket of open) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })

  async function pair(
    options: Partial<NetConnectOpts>,
  ): Promise<{ client: Socket; own: Socket; connection: Connection }> {
    const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
    const client = connect({ port, allowHalfOpen: true, ...options } as NetConnectOpts)
    const own = await accepted
    open.push(client, own)
    own.on('error', () => own.destroy())
    client.on('error', () => client.destroy())
    return {
      client,
      own,
      connection: {
        client: { address: own.remoteAddress!, port: own.remotePort! },
        own: { address: own.localAddress!, port },
      },
    }
  }

  for (const [name, table] of tables) {
    for (const [kind, options] of [
      ['IPv4', { host: '127.0.0.1' }],
      ['an odd source address', { host: '127.0.0.1', localAddress: '127.0.0.2' }],
      ['::1', { host: '::1' }],
      ['an IPv4 address through an IPv6 socket', { host: '::ffff:127.0.0.1' }],
    ] as const) {
      it(`${name} tells both ends of a connection over ${kind}`, async () => {
        const { client, own, connection } = await pair(options)
        const [rows] = table.find([connection])
        expect(rows?.client).to.include({
          inode: inodeOf(client),
          uid: process.getuid?.(),
          state: TCP_STATE.established,
        })
        expect(rows?.own).to.include({ inode: inodeOf(own), state: TCP_STATE.established })
      })
    }

    it(`${name} tells that a client has ended its side`, async () => {
      const { client, own, connection } = await pair({ host: '127.0.0.1' })
      const ended = new Promise((resolve) => own.once('end', resolve))
      own.resume()
      client.end()
      await ended
      const [rows] = table.find([connection])
      expect(rows?.client?.state).to.be.oneOf([TCP_STATE.finWait1, TCP_STATE.finWait2])
      expect(rows?.own?.state).to.equal(TCP_STATE.closeWait)
    })

    it(`${name} has no client for one that reset its connection`, async () => {
      const { client, own, connection } = await pair({ host: '127.0.0.1' })
      const closed = new Promise((resolve) => own.once('close', resolve))
      own.resume()
      client.resetAndDestroy()
      await closed
      expect(table.find([connection])).to.deep.equal([{}])
    })

    it(`${name} offers no listening socket in place of a connection`, async () => {
      const { connection } = await pair({ host: '127.0.0.1' })
      const unused = { address: '127.0.0.1', port: 1 }
      expect(table.find([{ client: unused, own: connection.own }])).to.deep.equal([{}])
    })
  }

  it('sock_diag tells the control group of the socket', async () => {
    const { connection } = await pair({ host: '127.0.0.1' })
    const [rows] = tables[0]![1].find([connection])
    expect(rows?.client?.cgroupId).to.match(/^\d+$/)
    expect(rows?.client?.cgroupId).to.equal(rows?.own?.cgroupId)
  })

  it('sock_diag goes past answers to older questions', async () => {
    const { client, connection } = await pair({ host: '127.0.0.1' })
    const socket = loadNative().openDiagSocket()
    const late: Buffer[] = []
    const table = createDiagSocketTable({
      send(message) {
        socket.send(message)
        const old = Buffer.from(message)
        old.writeUInt32LE(0xffff_fff0, 8)
        late.push(old)
      },
      receive(into) {
        const old = late.pop()
        if (old === undefined) return socket.receive(into)
        old.copy(into)
        return old.length
      },
    })
    expect(table.find([connection])[0]?.client?.inode).to.equal(inodeOf(client))
  })

  for (const [what, answer] of [
    ['nothing', undefined],
    ['something too short', Buffer.alloc(8)],
  ] as const)
    it(`sock_diag throws when the kernel answers ${what}`, async () => {
      const { connection } = await pair({ host: '127.0.0.1' })
      const table = createDiagSocketTable({
        send: () => undefined,
        receive(into) {
          answer?.copy(into)
          return answer?.length
        },
      })
      expect(() => table.find([connection])).to.throw(/sock_diag/)
    })
})
