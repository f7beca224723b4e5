/**
 * The kernel's TCP table: which socket stands at each end of a loopback connection. Both ends are listed, and the
 * exact 4-tuple picks them, because a client may bind any address of 127.0.0.0/8. Read from the text files of
 * /proc/net here, for kernels that do not answer sock_diag (sock-diag.ts), the way that costs less.
 */
import { readFileSync } from 'node:fs'
import { isIPv4 } from 'node:net'
import { endianness } from 'node:os'

/** One end of a TCP connection. */
export interface Endpoint {
  /** IPv4 or IPv6 text, as Node's sockets report it. */
  readonly address: string
  readonly port: number
}

/** An accepted connection, from the sidecar's side. */
export interface Connection {
  readonly client: Endpoint
  readonly own: Endpoint
}

/** What the kernel says about one socket. */
export interface SocketRow {
  /** 0 means that no process holds the socket any more; then `uid` is 0 as well and names nobody. */
  readonly inode: number
  readonly uid: number
  /** Number of the kernel's include/net/tcp_states.h. */
  readonly state: number
  /** Number of the control group that made the socket, where the kernel tells. */
  readonly cgroupId?: string
}

/** The two rows of a connection; absent where the kernel lists none, or more than one. */
export interface ConnectionRows {
  readonly client?: SocketRow
  readonly own?: SocketRow
}

/** Looks connections up. */
export interface SocketTable {
  /** Whether one connection costs the same asked alone: then it need not wait for others to share a reading. */
  readonly perConnection: boolean
  /** The rows of each connection, in the order asked; one reading serves all of them. */
  find(connections: readonly Connection[]): readonly ConnectionRows[]
}

/** States of include/net/tcp_states.h that matter here. */
export const TCP_STATE = { established: 1, finWait1: 4, finWait2: 5, closeWait: 8 } as const

/** Words of addresses are printed in the machine's own byte order. */
const LITTLE_ENDIAN = endianness() === 'LE'

/**
 * The table of `root`/net/tcp and `root`/net/tcp6.
 *
 * @param root - `/proc`, or a fixture
 */
export function createProcSocketTable(root: string): SocketTable {
  const read = (name: string): string => readFileSync(`${root}/net/${name}`, 'latin1')
  return {
    perConnection: false,
    find(connections): readonly ConnectionRows[] {
      const tcp = once(() => read('tcp'))
      const tcp6 = once(() => readOptional(() => read('tcp6')))
      return connections.map((connection) => {
        const rows = {
          client: findRow(tcp, tcp6, connection.client, connection.own),
          own: findRow(tcp, tcp6, connection.own, connection.client),
        }
        return {
          ...(rows.client === undefined ? {} : { client: rows.client }),
          ...(rows.own === undefined ? {} : { own: rows.own }),
        }
      })
    },
  }
}

/** A v4 connection may stand in either file: a client that used an IPv6 socket is listed with mapped addresses. */
function findRow(
  tcp: () => string,
  tcp6: () => string,
  local: Endpoint,
  remote: Endpoint,
): SocketRow | undefined {
  const v4 = [ipv4Of(local.address), ipv4Of(remote.address)] as const
  if (v4[0] !== undefined && v4[1] !== undefined) {
    const plain = rowIn(tcp(), hexV4(v4[0]), local.port, hexV4(v4[1]), remote.port)
    return plain ?? rowIn(tcp6(), hexMapped(v4[0]), local.port, hexMapped(v4[1]), remote.port)
  }
  return rowIn(tcp6(), hexV6(local.address), local.port, hexV6(remote.address), remote.port)
}

/** The one row with these ends. Two that differ mean that the table changed while it was read: no answer then. */
function rowIn(
  text: string,
  local: string,
  localPort: number,
  remote: string,
  remotePort: number,
): SocketRow | undefined {
  const needle = ` ${local}:${hexPort(localPort)} ${remote}:${hexPort(remotePort)} `
  let found: SocketRow | undefined
  for (let at = text.indexOf(needle); at !== -1; at = text.indexOf(needle, at + 1)) {
    const end = text.indexOf('\n', at)
    const row = parseRest(text.slice(at + needle.length, end === -1 ? text.length : end))
    if (row === undefined) return undefined
    if (found !== undefined && (found.inode !== row.inode || found.state !== row.state))
      return undefined
    found = row
  }
  return found
}

/** Fields after the two addresses: st tx_queue:rx_queue timer:when retransmits uid timeout inode … */
function parseRest(rest: string): SocketRow | undefined {
  const [state, , , , uid, , inode] = rest.trim().split(/\s+/)
  if (state === undefined || uid === undefined || inode === undefined) return undefined
  if (!/^[0-9A-F]{2}$/.test(state) || !/^\d+$/.test(uid) || !/^\d+$/.test(inode)) return undefined
  return { state: Number.parseInt(state, 16), uid: Number(uid), inode: Number(inode) }
}

/** The IPv4 address in a text, mapped ones included; undefined when it is none. */
export function ipv4Of(address: string): string | undefined {
  const text = address.replace(/^::ffff:/i, '')
  return isIPv4(text) ? text : undefined
}

function hexPort(port: number): string {
  return port.toString(16).toUpperCase().padStart(4, '0')
}

function hexV4(address: string): string {
  return hexWord(address.split('.').map(Number))
}

function hexMapped(address: string): string {
  return hexWord([0, 0, 0, 0]).repeat(2) + hexWord([0, 0, 0xff, 0xff]) + hexV4(address)
}

function hexV6(address: string): string {
  const bytes = ipv6Bytes(address)
  return [0, 4, 8, 12].map((at) => hexWord(bytes.slice(at, at + 4))).join('')
}

/** The 16 bytes of an IPv6 address without an IPv4 tail, its zone left out. */
export function ipv6Bytes(address: string): readonly number[] {
  const [head = '', tail] = address.replace(/%.*$/, '').split('::')
  const front = head === '' ? [] : head.split(':')
  const back = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = Array.from({ length: Math.max(0, 8 - front.length - back.length) }, () => '0')
  return [...front, ...zeros, ...back].flatMap((group) => {
    const value = Number.parseInt(group, 16)
    return [value >> 8, value & 0xff]
  })
}

function hexWord(bytes: readonly number[]): string {
  const ordered = LITTLE_ENDIAN ? bytes.toReversed() : bytes
  return ordered.map((byte) => byte.toString(16).toUpperCase().padStart(2, '0')).join('')
}

function once(read: () => string): () => string {
  let text: string | undefined
  return () => (text ??= read())
}

/** A kernel without IPv6 has no tcp6. */
function readOptional(read: () => string): string {
  try {
    return read()
  } catch {
    return ''
  }
}
