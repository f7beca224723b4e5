/** What agents look at: serves HTTP on 8080 and logs a line four times a second. */
import { createServer } from 'node:http'

createServer((_request, response) => response.end('hello from the target\n')).listen(8080)
let tick = 0
setInterval(() => {
  console.log(`tick ${(tick += 1)}`)
}, 250)
