/**
 * What the attribution benchmark calls: a bare HTTP server that looks its callers up, or does not:
 * `node bench/attribution-server.ts off|sock_diag|proc`. Nothing is forwarded, so that nothing hides what a lookup costs.
 */
import { createServer } from 'node:http'
import { createJsonLog } from '../shared/json-log.ts'
import { createCallers } from '../sidecar/caller/caller.ts'
import { createExeHashes } from '../sidecar/caller/exe-hash.ts'
import { openKernel } from '../sidecar/caller/kernel.ts'
import { createProcSocketTable } from '../sidecar/caller/socket-table.ts'

const BODY = '{"kind":"Status"}'
const HEADERS = { 'content-type': 'application/json', 'content-length': BODY.length }

const mode = process.argv[2]
const log = createJsonLog('attribution-server', 'info')
const kernel =
  mode === 'proc' ? { table: createProcSocketTable('/proc') } : openKernel('/proc', log)
const callers = createCallers({
  procRoot: '/proc',
  ...kernel,
  hashes: createExeHashes(),
  unreadable: 'refuse',
  level: () => ({ kind: 'process' }),
  now: () => performance.now(),
})

const server = createServer((request, response) => {
  if (mode === 'off') {
    response.writeHead(200, HEADERS).end(BODY)
    return
  }
  void callers.identify(request.socket).then((tag) => {
    const named = 'verdict' in tag && tag.verdict === 'exclusive'
    response.writeHead(named ? 200 : 503, HEADERS).end(BODY)
  })
})
server.on('connection', (socket) => {
  if (mode !== 'off' && !callers.accept(socket)) socket.destroy()
})
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  log.info({ port }, 'listening')
})
