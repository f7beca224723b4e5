/** Both ends of a SPDY connection over a real socket: ours against ours, and ours against bytes written by hand. */
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { createSpdyConnection } from '../../broker/sessions/spdy/connection.ts'
import type { SpdyConnection } from '../../broker/sessions/spdy/connection.ts'
import { FrameParser } from '../../broker/sessions/spdy/frames.ts'
import type { ControlFrame } from '../../broker/sessions/spdy/frames.ts'

/** Two sockets that are connected, as those of an upgraded HTTP connection: each direction ends by itself. */
export async function socketPair(): Promise<[client: Socket, server: Socket]> {
  const listener = createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as AddressInfo
  const client = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  const [server] = (await once(listener, 'connection')) as [Socket]
  if (client.connecting) await once(client, 'connect')
  listener.close()
  return [client, server]
}

/** Ours on both sides. */
export async function spdyPair(): Promise<{
  readonly client: SpdyConnection
  readonly server: SpdyConnection
  readonly sockets: readonly [Socket, Socket]
}> {
  const sockets = await socketPair()
  const client = createSpdyConnection(sockets[0], { role: 'client' })
  const server = createSpdyConnection(sockets[1], { role: 'server' })
  return { client, server, sockets }
}

/** What a peer has sent, as text: control frames by name, bytes of DATA joined. */
export interface Recorder {
  readonly events: string[]
  readonly parser: FrameParser
}

/** Reads frames into texts that can be compared; pieces of one DATA frame become one. */
export function recorder(): Recorder {
  const events: string[] = []
  let data: Buffer[] = []
  let id = 0
  const parser = new FrameParser({
    onControl(frame) {
      events.push(named(frame))
    },
    onDataStart(given) {
      id = given
      data = []
    },
    onData(bytes) {
      data.push(Buffer.from(bytes))
    },
    onDataEnd(fin) {
      events.push(`data ${id} "${Buffer.concat(data).toString('latin1')}"${fin ? ' fin' : ''}`)
    },
  })
  return { events, parser }
}

function named(frame: ControlFrame): string {
  switch (frame.type) {
    case 'syn_stream':
    case 'syn_reply':
    case 'headers':
      return `${frame.type} ${frame.id} ${frame.block.toString('hex')}${frame.fin ? ' fin' : ''}`
    case 'rst_stream':
      return `rst_stream ${frame.id} ${frame.status}`
    case 'ping':
      return `ping ${frame.id}`
    case 'goaway':
      return `goaway ${frame.status}`
  }
}

/** Our side against a socket that a test writes to; `sent` is what ours says. */
export async function spdyAgainstBytes(role: 'client' | 'server'): Promise<{
  readonly ours: SpdyConnection
  readonly socket: Socket
  readonly oursSocket: Socket
  readonly sent: string[]
}> {
  const [first, second] = await socketPair()
  const ours = createSpdyConnection(second, { role })
  const { events, parser } = recorder()
  first.on('data', (chunk) => parser.push(chunk))
  first.on('error', () => undefined)
  return { ours, socket: first, oursSocket: second, sent: events }
}
