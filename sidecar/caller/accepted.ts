/**
 * The accepted connections and their rows in the kernel's table. A row counts only if the one of our own end carries the
 * inode of the socket that was accepted: the port of a dead client may be another's by now.
 */
import { fstatSync } from 'node:fs'
import type { Socket } from 'node:net'
import { isRecord } from '../../shared/config-source.ts'
import { TCP_STATE } from './socket-table.ts'
import type { Connection, ConnectionRows, SocketRow, SocketTable } from './socket-table.ts'

const CLIENT_STATES: ReadonlySet<number> = new Set([
  TCP_STATE.established,
  TCP_STATE.finWait1,
  TCP_STATE.finWait2,
])
const OWN_STATES: ReadonlySet<number> = new Set([TCP_STATE.established, TCP_STATE.closeWait])

/** What is told of a client before it has sent anything. */
export interface AcceptedClient {
  /** Who made its socket, where the kernel tells that at little cost. */
  readonly uid: number | undefined
}

/** See the head of the file. */
export interface AcceptedConnections {
  /** Notes the ends of a connection; undefined when the client is gone already. */
  note(socket: Socket): AcceptedClient | undefined
  /** The row of the client's end, or why there is none that can be believed. */
  row(socket: Socket): SocketRow | string
  /** The same for several, in their order: one reading of the table serves all. */
  rows(sockets: readonly Socket[]): readonly (SocketRow | string)[]
  /** Whether any process holds the client's end. */
  isHeld(socket: Socket): boolean
}

/** None at first. */
export function createAcceptedConnections(table: SocketTable): AcceptedConnections {
  const connections = new WeakMap<Socket, Connection>()
  const rows = (sockets: readonly Socket[]): readonly (SocketRow | string)[] => {
    const asked = sockets.map((socket) => connections.get(socket))
    const noted = asked.filter((connection) => connection !== undefined)
    const found = new Map(table.find(noted).map((pair, at) => [noted[at], pair] as const))
    return sockets.map((socket, at) => {
      const pair = found.get(asked[at]) ?? {}
      return connectionProblem(pair, ownInode(socket)) ?? pair.client ?? 'no row'
    })
  }
  const row = (socket: Socket): SocketRow | string => rows([socket])[0] ?? 'no row'
  const uidOf = (socket: Socket): number | undefined => {
    if (!table.perConnection) return undefined
    try {
      const client = row(socket)
      return typeof client === 'string' ? undefined : client.uid
    } catch {
      // A fault has no request to end yet; the first one will meet it again.
      return undefined
    }
  }
  return {
    rows,
    row,
    note(socket): AcceptedClient | undefined {
      const { remoteAddress, remotePort, localAddress, localPort } = socket
      if (remoteAddress === undefined || remotePort === undefined) return undefined
      if (localAddress === undefined || localPort === undefined) return undefined
      connections.set(socket, {
        client: { address: remoteAddress, port: remotePort },
        own: { address: localAddress, port: localPort },
      })
      return { uid: uidOf(socket) }
    },
    isHeld(socket): boolean {
      const connection = connections.get(socket)
      if (connection === undefined) return false
      try {
        const inode = table.find([connection])[0]?.client?.inode
        return inode !== undefined && inode !== 0
      } catch {
        // Nothing is known to have changed; who asks goes on asking.
        return true
      }
    },
  }
}

/** Why these rows are not those of the accepted connection; undefined when they are. */
export function connectionProblem(
  { client, own }: ConnectionRows,
  acceptedInode: number | undefined,
): string | undefined {
  if (acceptedInode === undefined || own === undefined) return 'the connection is closed'
  if (own.inode !== acceptedInode) return 'the connection is closed and its port is in use again'
  if (!OWN_STATES.has(own.state)) return 'the connection is closed'
  if (client === undefined) return 'the client’s end is not in the kernel’s table'
  if (client.inode === 0) return 'no process holds the client’s end any more'
  if (!CLIENT_STATES.has(client.state)) return 'the client’s end is not connected'
  return undefined
}

/** The inode of the accepted socket itself. Node has no public way to a socket's descriptor. */
function ownInode(socket: Socket): number | undefined {
  if (!('_handle' in socket) || !isRecord(socket._handle)) return undefined
  const { fd } = socket._handle
  if (typeof fd !== 'number' || fd < 0) return undefined
  try {
    return fstatSync(fd).ino
  } catch {
    return undefined
  }
}
