/** What sessions are opened to: answers HTTP on 8080, logs a line four times a second, and answers each line that it reads. */
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'

const LONG = Buffer.alloc(8 * 2 ** 20, 'the body of a long answer. ')

if (process.argv[2] === 'echo') {
  createInterface({ input: process.stdin }).on('line', (line) => {
    console.log(`echo: ${line}`)
  })
  setInterval(() => undefined, 60_000)
} else {
  createServer((request, response) => {
    if (request.url === '/long') {
      response.end(LONG)
      return
    }
    if (request.method === 'POST') {
      const hash = createHash('sha256')
      request.on('data', (piece: Buffer) => hash.update(piece))
      request.on('end', () => response.end(hash.digest('hex')))
      return
    }
    response.end(`hello from ${request.url ?? ''}`)
  }).listen(8080)
  let tick = 0
  setInterval(() => {
    console.log(`tick ${(tick += 1)}`)
  }, 250)
}
