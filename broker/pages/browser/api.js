/** Asks the broker. The ticket is kept here alone: not in the address, not in storage, so that it ends with the page. */

let ticket = ''

/** Takes the ticket out of the address, which is then without it. @returns {boolean} whether there was one */
export function takeTicket() {
  const found = new URLSearchParams(location.hash.slice(1)).get('ticket')
  history.replaceState(null, '', location.pathname)
  ticket = found ?? ''
  return ticket !== ''
}

/** A refusal of the broker. */
export class Refused extends Error {
  /** @param {string} code @param {string} title */
  constructor(code, title) {
    super(title)
    this.code = code
  }
}

/** @param {string} path - below `/v1/sessions/` @returns {Promise<Response>} */
export async function ask(path) {
  const response = await fetch(`/v1/sessions/${path}`, {
    headers: { authorization: `Bearer ${ticket}` },
    cache: 'no-store',
    credentials: 'omit',
    redirect: 'error',
  })
  if (response.ok) return response
  const problem = await response.json().catch(() => ({}))
  throw new Refused(String(problem.code ?? response.status), String(problem.title ?? 'no answer'))
}

/**
 * Whole lines of an answer, so many characters at most: a recording may be larger than a page can hold.
 *
 * @param {Response} response
 * @param {number} most
 * @returns {Promise<{text: string, isCut: boolean}>}
 */
export async function linesOf(response, most) {
  if (response.body === null) return { text: '', isCut: false }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  const parts = []
  let length = 0
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return { text: parts.join(''), isCut: false }
    parts.push(value)
    length += value.length
    if (length <= most) continue
    await reader.cancel()
    const text = parts.join('').slice(0, most)
    return { text: text.slice(0, text.lastIndexOf('\n') + 1), isCut: true }
  }
}

/** Longest event, in characters: whatever is longer is not one of the broker's. */
const MAX_EVENT_LENGTH = 4 * 1024 * 1024

/**
 * Server-sent events of an answer, one by one. EventSource cannot send the ticket.
 *
 * @param {Response} response
 * @returns {AsyncGenerator<{name: string, data: string}>}
 */
export async function* eventsOf(response) {
  if (response.body === null) return
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let held = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    held += value
    const blocks = held.split('\n\n')
    held = blocks.pop() ?? ''
    if (held.length > MAX_EVENT_LENGTH) throw new Error('an event without end')
    for (const block of blocks) {
      let name = ''
      let data = ''
      for (const line of block.split('\n')) {
        if (line.startsWith('event: ')) name = line.slice(7)
        else if (line.startsWith('data: ')) data += line.slice(6)
      }
      if (name !== '') yield { name, data }
    }
  }
}
