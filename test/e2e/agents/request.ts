/**
 * An agent that speaks HTTP by hand: sends one request with a target of any form over a socket of its own and
 * prints `{pid, status, body}`. Runs inside the pod: `node request.ts METHOD TARGET [HEADER: VALUE]…`.
 */
import { connect } from 'node:net'

/** What came back. */
export interface RawAnswer {
  readonly pid: number
  readonly status: number
  readonly body: string
}

const [method = 'GET', target = '/', ...headers] = process.argv.slice(2)
const lines = [`${method} ${target} HTTP/1.1`, 'Host: localhost:8001', ...headers]
const socket = connect(8001, '127.0.0.1')
let text = ''
socket.setEncoding('utf8').on('data', (part: string) => (text += part))
socket.write(`${[...lines, 'Connection: close'].join('\r\n')}\r\n\r\n`)
socket.on('close', () => {
  const end = text.indexOf('\r\n\r\n')
  const answer: RawAnswer = {
    pid: process.pid,
    status: Number(text.split(' ')[1]),
    body: text.slice(end + 4),
  }
  console.log(JSON.stringify(answer))
})
