/**
 * A stand-in for an API server that has its answers ready, a process of its own: `node bench/masking-server.ts CERT KEY`. Says its port in a line.
 * Serves the bodies of masking-bodies.ts; at `?bytes=N` a list of so many bytes, at `?watch=true&events=N` so many events with a pause before each.
 */
import { readFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { makeBodies, secretItems, STREAMED, watchEvent } from './masking-bodies.ts'

const PIECE_BYTES = 1e6
const EVENT_PAUSE_MS = 4

const resources = (namespaced: boolean, ...names: readonly string[]): readonly object[] =>
  names.map((name) => ({ name, namespaced, verbs: ['get', 'list', 'watch'] }))
const DISCOVERY: Readonly<Record<string, readonly object[]>> = {
  '/api/v1': [
    ...resources(true, 'secrets', 'configmaps', 'pods', 'services'),
    ...resources(false, 'nodes'),
  ],
  '/apis/example.com/v1': resources(true, 'widgets'),
}

const bodies = makeBodies()
const json = { 'content-type': 'application/json' } as const

async function sendList(response: ServerResponse, bytes: number): Promise<void> {
  response.writeHead(200, json)
  response.write(STREAMED.head)
  const piece = secretItems(PIECE_BYTES)
  const closed = new Promise((resolve) => response.once('close', resolve))
  for (let sent = 0; sent < bytes && !response.destroyed; sent += piece.length)
    if (!response.write(piece))
      await Promise.race([closed, new Promise((resolve) => response.once('drain', resolve))])
  response.end(STREAMED.tail)
}

async function sendEvents(response: ServerResponse, count: number): Promise<void> {
  response.writeHead(200, json)
  response.flushHeaders()
  for (let at = 0; at < count && !response.destroyed; at += 1) {
    await sleep(EVENT_PAUSE_MS)
    response.write(watchEvent(at, process.hrtime.bigint()))
  }
  response.end()
}

function answer(url: URL, accept: string, response: ServerResponse): void {
  const { pathname, searchParams } = url
  const served = DISCOVERY[pathname]
  if (served !== undefined) {
    response.writeHead(200, json)
    response.end(JSON.stringify({ kind: 'APIResourceList', resources: served }))
    return
  }
  const bytes = searchParams.get('bytes')
  if (bytes !== null) {
    void sendList(response, Number(bytes))
    return
  }
  const events = searchParams.get('events')
  if (events !== null) {
    void sendEvents(response, Number(events))
    return
  }
  const isTable = accept.includes('as=Table')
  const found = bodies.find(
    (one) => one.path === pathname && one.accept.includes('as=') === isTable,
  )
  if (found === undefined) {
    response.writeHead(404, json).end('{"kind":"Status","status":"Failure","code":404}')
    return
  }
  response.writeHead(200, { ...json, 'content-length': found.bytes.length })
  response.end(found.bytes)
}

const [certFile = '', keyFile = ''] = process.argv.slice(2)
const tls = { cert: readFileSync(certFile), key: readFileSync(keyFile) }
const server = createServer(tls, (request, response) => {
  request.resume()
  answer(new URL(request.url ?? '/', 'https://server'), request.headers.accept ?? '', response)
})
server.listen(0, '127.0.0.1', () => {
  console.log(`port ${(server.address() as AddressInfo).port}`)
})
