/**
 * The kernel's TCP table by sock_diag(7): one exact question for each end of a connection, answered in microseconds
 * whatever the number of sockets on the node, without any capability. The text files of /proc/net cost a walk over
 * the node's whole table instead; see socket-table.ts. Structures of include/uapi/linux: netlink.h, inet_diag.h.
 */
import { isIPv4 } from 'node:net'
import { endianness } from 'node:os'
import type { DiagSocket } from '../native.ts'
import { ipv4Of, ipv6Bytes } from './socket-table.ts'
import type {
  Connection,
  ConnectionRows,
  Endpoint,
  SocketRow,
  SocketTable,
} from './socket-table.ts'

const NLMSG_ERROR = 2
const SOCK_DIAG_BY_FAMILY = 20
const NLM_F_REQUEST = 1
const AF_INET = 2
const AF_INET6 = 10
const IPPROTO_TCP = 6
const ENOENT = 2
const INET_DIAG_CGROUP_ID = 21
/** `INET_DIAG_NOCOOKIE`: any socket with these ends. */
const NO_COOKIE = 0xffff_ffff
const ALL_STATES = 0xffff_ffff

/** Sizes in bytes. */
const HEADER = 16
const REQUEST = 56
const ANSWER = 72
const ATTRIBUTE_HEADER = 4
/** Where the two ends stand in an `inet_diag_sockid`, and how long they are: ports, then addresses. */
const ID_IN_REQUEST = 8
const ID_IN_ANSWER = 4
const ENDS = 36
/** Room for one answer with its attributes. */
const RECEIVE_BYTES = 4096
/** Answers to questions given up before that may stand in front of the one expected. */
const MAX_STALE = 8

const LITTLE_ENDIAN = endianness() === 'LE'

/** The fields of netlink are in the machine's own byte order. */
const order = {
  u16: (bytes: Buffer, at: number): number =>
    LITTLE_ENDIAN ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at),
  u32: (bytes: Buffer, at: number): number =>
    LITTLE_ENDIAN ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at),
  i32: (bytes: Buffer, at: number): number =>
    LITTLE_ENDIAN ? bytes.readInt32LE(at) : bytes.readInt32BE(at),
  u64: (bytes: Buffer, at: number): bigint =>
    LITTLE_ENDIAN ? bytes.readBigUInt64LE(at) : bytes.readBigUInt64BE(at),
  put16: (bytes: Buffer, value: number, at: number): number =>
    LITTLE_ENDIAN ? bytes.writeUInt16LE(value, at) : bytes.writeUInt16BE(value, at),
  put32: (bytes: Buffer, value: number, at: number): number =>
    LITTLE_ENDIAN ? bytes.writeUInt32LE(value, at) : bytes.writeUInt32BE(value, at),
}

/**
 * The table behind a netlink socket. `find` throws when the kernel answers in a way that is not understood.
 *
 * @param socket - of the network namespace whose connections are asked for
 */
export function createDiagSocketTable(socket: DiagSocket): SocketTable {
  const request = Buffer.alloc(HEADER + REQUEST)
  const reply = Buffer.alloc(RECEIVE_BYTES)
  let sequence = 0
  const ask = (local: Endpoint, remote: Endpoint): SocketRow | undefined => {
    sequence = (sequence + 1) >>> 0
    writeRequest(request, sequence, local, remote)
    socket.send(request)
    for (let stale = 0; stale <= MAX_STALE; stale += 1) {
      const size = socket.receive(reply)
      if (size === undefined) break
      if (size >= HEADER && order.u32(reply, 8) === sequence)
        return readAnswer(request, reply.subarray(0, size))
    }
    throw new Error('the kernel does not answer sock_diag')
  }
  return {
    perConnection: true,
    find: (connections: readonly Connection[]): readonly ConnectionRows[] =>
      connections.map(({ client, own }) => {
        const rows = { client: ask(client, own), own: ask(own, client) }
        return {
          ...(rows.client === undefined ? {} : { client: rows.client }),
          ...(rows.own === undefined ? {} : { own: rows.own }),
        }
      }),
  }
}

/** `struct nlmsghdr` and `struct inet_diag_req_v2`. A question for IPv4 finds clients with mapped addresses too. */
function writeRequest(into: Buffer, sequence: number, local: Endpoint, remote: Endpoint): void {
  into.fill(0)
  order.put32(into, into.length, 0)
  order.put16(into, SOCK_DIAG_BY_FAMILY, 4)
  order.put16(into, NLM_F_REQUEST, 6)
  order.put32(into, sequence, 8)
  const ends = [ipv4Of(local.address), ipv4Of(remote.address)]
  const isV4 = ends.every((end) => end !== undefined)
  into[HEADER] = isV4 ? AF_INET : AF_INET6
  into[HEADER + 1] = IPPROTO_TCP
  order.put32(into, ALL_STATES, HEADER + 4)
  const id = HEADER + ID_IN_REQUEST
  into.writeUInt16BE(local.port, id)
  into.writeUInt16BE(remote.port, id + 2)
  into.set(addressBytes(local.address), id + 4)
  into.set(addressBytes(remote.address), id + 20)
  order.put32(into, NO_COOKIE, id + 40)
  order.put32(into, NO_COOKIE, id + 44)
}

/** `struct inet_diag_msg`, whose ends must be those asked for: the kernel offers a listening socket where there is no other. */
function readAnswer(request: Buffer, answer: Buffer): SocketRow | undefined {
  const type = order.u16(answer, 4)
  if (type === NLMSG_ERROR && answer.length >= HEADER + 4) {
    const error = -order.i32(answer, HEADER)
    if (error === ENOENT) return undefined
    throw new Error(`sock_diag failed with error ${error}`)
  }
  if (type !== SOCK_DIAG_BY_FAMILY || answer.length < HEADER + ANSWER)
    throw new Error('sock_diag answered something else')
  const asked = request.subarray(HEADER + ID_IN_REQUEST, HEADER + ID_IN_REQUEST + ENDS)
  const told = answer.subarray(HEADER + ID_IN_ANSWER, HEADER + ID_IN_ANSWER + ENDS)
  if (!sameEnds(asked, told)) return undefined
  const cgroupId = cgroupOf(answer)
  return {
    state: answer[HEADER + 1] ?? 0,
    uid: order.u32(answer, HEADER + ANSWER - 8),
    inode: order.u32(answer, HEADER + ANSWER - 4),
    ...(cgroupId === undefined ? {} : { cgroupId }),
  }
}

/** A client that used an IPv6 socket for IPv4 is told with mapped addresses. */
function sameEnds(asked: Buffer, told: Buffer): boolean {
  if (asked.equals(told)) return true
  if (!asked.subarray(0, 4).equals(told.subarray(0, 4))) return false
  return [4, 20].every((at) => {
    const word = asked.subarray(at, at + 4)
    const mapped = Buffer.concat([Buffer.alloc(10), Buffer.from([0xff, 0xff]), word])
    return mapped.equals(told.subarray(at, at + 16))
  })
}

/** The control group that made the socket; kernels before 5.8 do not tell. */
function cgroupOf(answer: Buffer): string | undefined {
  const end = Math.min(answer.length, order.u32(answer, 0))
  for (let at = HEADER + ANSWER; at + ATTRIBUTE_HEADER <= end;) {
    const size = order.u16(answer, at)
    if (size < ATTRIBUTE_HEADER || at + size > end) return undefined
    const isCgroup = order.u16(answer, at + 2) === INET_DIAG_CGROUP_ID
    if (isCgroup && size >= ATTRIBUTE_HEADER + 8)
      return order.u64(answer, at + ATTRIBUTE_HEADER).toString()
    at += (size + 3) & ~3
  }
  return undefined
}

function addressBytes(address: string): readonly number[] {
  const v4 = ipv4Of(address)
  if (v4 !== undefined && isIPv4(v4)) return v4.split('.').map(Number)
  return ipv6Bytes(address)
}
