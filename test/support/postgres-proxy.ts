/** A TCP proxy before PostgreSQL that cuts connections where a test says. */
import { createServer, connect } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'

/** How the next COMMIT is cut: before it reaches the server, or before its answer reaches the client. */
export type Cut = 'before' | 'after'

export interface Proxy {
  readonly port: number
  /** Cuts the connection of the next COMMIT. */
  cutCommit(cut: Cut): void
  /** Cuts connections of this application's name, and lets none in any more. */
  refuse(application: string): void
  close(): Promise<void>
}

const COMMIT = Buffer.from('commit\0')

export async function startProxy(serverPort: number): Promise<Proxy> {
  const links = new Map<Socket, { server: Socket; application: string }>()
  let cut: Cut | undefined
  let refused = ''
  const end = (client: Socket): void => {
    client.destroy()
    links.get(client)?.server.destroy()
    links.delete(client)
  }
  const proxy = createServer((client) => {
    const server = connect(serverPort, '127.0.0.1')
    const link = { server, application: '' }
    links.set(client, link)
    let mute = false
    client.on('data', (data) => {
      // the first message of a connection names its application
      if (link.application === '') link.application = data.toString('latin1')
      if (refused !== '' && link.application.includes(refused)) {
        end(client)
        return
      }
      if (cut !== undefined && data.includes(COMMIT)) {
        const now = cut
        cut = undefined
        if (now === 'before') {
          end(client)
          return
        }
        mute = true
        server.once('data', () => {
          end(client)
        })
      }
      server.write(data)
    })
    server.on('data', (data) => {
      if (!mute) client.write(data)
    })
    for (const socket of [client, server]) {
      socket.on('error', () => undefined)
      socket.on('close', () => {
        end(client)
      })
    }
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  return {
    port: (proxy.address() as AddressInfo).port,
    cutCommit(how) {
      cut = how
    },
    refuse(application) {
      refused = application
      for (const [client, link] of links) if (link.application.includes(application)) end(client)
    },
    async close() {
      for (const client of [...links.keys()]) end(client)
      await new Promise((resolve) => proxy.close(resolve))
    },
  }
}
