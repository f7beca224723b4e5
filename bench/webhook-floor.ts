/** What any webhook costs: HTTPS by Node alone, the body read, parsed and answered with a fixed review. Arguments: certificate, key, port. */
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'

const [, , cert = '', key = '', port = ''] = process.argv
const ANSWER = JSON.stringify({
  apiVersion: 'admission.k8s.io/v1',
  kind: 'AdmissionReview',
  response: { uid: 'c0ffee00-0000-4000-8000-000000000001', allowed: true },
})

const server = createServer(
  { cert: readFileSync(cert), key: readFileSync(key), keepAliveTimeout: 120_000 },
  (request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      if (chunks.length > 0) JSON.parse(Buffer.concat(chunks).toString())
      response.setHeader('content-type', 'application/json')
      response.end(ANSWER)
    })
  },
)
server.listen(Number(port), '127.0.0.1')
process.on('SIGTERM', () => {
  process.exit(0)
})
