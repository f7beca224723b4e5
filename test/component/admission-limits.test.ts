import { expect } from 'chai'
import { once } from 'node:events'
import { connect } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import express from 'express'
import { after, before, describe, it } from 'mocha'
import { faultHandler } from '../../broker/api/answers.ts'
import { apiServerRoutes, MAX_LARGE_ADMISSIONS } from '../../broker/api/api-server-routes.ts'
import type { ApiServerRoutesDeps } from '../../broker/api/api-server-routes.ts'
import { createTickets } from '../../broker/credentials/tickets.ts'
import { SILENT } from '../support/sqlite-store.ts'

const LARGE = 1024 * 1024

describe('reviews by anybody', () => {
  let server: Server
  let port = 0
  const sockets: Socket[] = []
  before(async () => {
    const credentials = {
      tickets: createTickets(Date.now),
      issuer: undefined,
      onRefused: () => undefined,
    }
    const clusters = { settingsOf: (name: string) => (name === 'prod' ? {} : undefined) }
    const deps = { clusters, credentials } as unknown as ApiServerRoutesDeps
    const app = express()
    app.use('/v1', apiServerRoutes(deps, express.json()))
    app.use(faultHandler(SILENT))
    server = createServer((request, response) => {
      app(request, response)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    port = (server.address() as AddressInfo).port
  })
  after(async () => {
    for (const socket of sockets) socket.destroy()
    server.close()
    server.closeAllConnections()
    await once(server, 'close')
  })

  /** Begins a review and leaves its end away. */
  const begin = (cluster: string, length: number | undefined, body = '{'): Socket => {
    const socket = connect(port, '127.0.0.1')
    sockets.push(socket)
    const size = length === undefined ? 'Transfer-Encoding: chunked' : `Content-Length: ${length}`
    socket.write(
      `POST /v1/clusters/${cluster}/admit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n${size}\r\n\r\n${length === undefined ? '' : body}`,
    )
    return socket
  }
  const statusOf = async (socket: Socket): Promise<string> => {
    const [data] = (await once(socket, 'data')) as [Buffer]
    return data.toString().slice(9, 12)
  }
  const review = JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      ...{ uid: 'u', operation: 'CREATE', resource: { group: '', resource: 'pods' } },
      userInfo: { username: 'eve' },
    },
  })
  const small = (): Socket => begin('prod', Buffer.byteLength(review), review)

  it('are answered before their body where there is no such cluster', async () => {
    expect(await statusOf(begin('none', LARGE))).to.equal('404')
  })

  it('are few at once where they are large, and small ones go on', async () => {
    const held: Socket[] = []
    for (let i = 0; i < MAX_LARGE_ADMISSIONS; i += 1) held.push(begin('prod', LARGE))
    // in order on this side; a small one that was answered says that those before were begun
    expect(await statusOf(small())).to.equal('200')
    expect(await statusOf(begin('prod', LARGE))).to.equal('503')
    expect(await statusOf(begin('prod', undefined))).to.equal('503')
    expect(await statusOf(small())).to.equal('200')
    held[0]?.destroy()
    await new Promise((resolve) => setTimeout(resolve, 50))
    const text = review + ' '.repeat(LARGE - Buffer.byteLength(review))
    expect(await statusOf(begin('prod', LARGE, text))).to.equal('200')
  })
})
