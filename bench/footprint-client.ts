/**
 * The clients of the footprint benchmark: `node bench/footprint-client.ts JSON`. Opens connections, each with a request
 * of its own, keeps them, then reads one long answer at the pace of the plan. Prints a line when each step is done.
 */
import { once } from 'node:events'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** What the clients do. */
export interface FootprintPlan {
  readonly port: number
  readonly connections: number
  /** What each of them asks for: an answer that ends, or one that does not. */
  readonly path: string
  readonly listPath: string
  readonly listBytes: number
  /** How long to wait before the list, so that what the opening took has been given back, in milliseconds. */
  readonly restMs: number
  /** How long the list is read, in milliseconds. */
  readonly listMs: number
}

/** Pauses in the reading of the list. */
const PAUSES = 40

function ask(port: number, path: string): Socket {
  const socket = connect(port, '127.0.0.1')
  socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
  return socket
}

async function readSlowly(socket: Socket, { listBytes, listMs }: FootprintPlan): Promise<void> {
  let read = 0
  let next = listBytes / PAUSES
  for await (const chunk of socket) {
    read += (chunk as Buffer).length
    if (read >= listBytes) return
    if (read < next) continue
    next += listBytes / PAUSES
    await sleep(listMs / PAUSES)
  }
  throw new Error(`the list ended after ${read} bytes`)
}

async function main(plan: FootprintPlan): Promise<void> {
  const sockets: Socket[] = []
  for (let opened = 0; opened < plan.connections; opened += 1) {
    const socket = ask(plan.port, plan.path)
    sockets.push(socket)
    await once(socket, 'data')
    socket.resume()
  }
  console.log('open')
  await sleep(plan.restMs)
  console.log('reading')
  const list = ask(plan.port, plan.listPath)
  await readSlowly(list, plan)
  console.log('done')
  for (const socket of [list, ...sockets]) socket.destroy()
}

if (import.meta.main) await main(JSON.parse(process.argv[2] ?? '{}') as FootprintPlan)
