/** The page that plays a session. */
import { Refused, ask, eventsOf, linesOf, takeTicket } from './api.js'
import { showFacts } from './facts.js'
import { showTables } from './tables.js'
import { hasOutput, live, parseCast, play, playedAt } from './terminal.js'
import { trustPlayer } from './trusted.js'

/** @param {string} id @returns {HTMLElement} */
function byId(id) {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`the page has no ${id}`)
  return found
}

/** What of an asciicast is played, in characters; all of it is in the recording. */
const MAX_CAST_LENGTH = 64 * 1024 * 1024
/** Details that a running session keeps for its tables. */
const MAX_LIVE_DETAILS = 5000

const session = location.pathname.split('/').at(-1) ?? ''

/** @param {string} text @param {boolean} [bad] */
function say(text, bad = false) {
  const place = byId('state')
  place.textContent = text
  place.className = bad ? 'bad' : ''
}

/** @param {unknown} error */
function sayError(error) {
  if (error instanceof Refused && error.code === 'credentials_invalid')
    say('The link is used up or too old. Ask for a new one: nestgate sessions view ID', true)
  else if (error instanceof Refused) say(`${error.code}: ${error.message}`, true)
  else say('The session cannot be shown; the connection may have broken. Ask for a new link.', true)
}

/** @param {any} found */
function showSession(found) {
  const heading = document.querySelector('h1')
  if (heading !== null) heading.textContent = `Session ${session}`
  showFacts(byId('facts'), found)
}

/** @param {string} id */
function chosen(id) {
  const field = byId(id)
  return field instanceof HTMLSelectElement ? Number(field.value) : NaN
}

/** @param {any} found */
async function replay(found) {
  if (found.recording === undefined) {
    say('It has no recording.')
    return
  }
  const { text, isCut } = await linesOf(await ask(`${session}/asciicast`), MAX_CAST_LENGTH)
  const cast = parseCast(text)
  const { items, more } = await (await ask(`${session}/details`)).json()
  /** @type {import('./terminal.js').Player | undefined} */
  let player
  const start = () => {
    player?.dispose()
    const options = { speed: chosen('speed'), idle: chosen('idle') }
    player = play(byId('terminal'), cast, options)
    player.addEventListener('ended', () => {
      say(isCut ? 'Played as far as a page can hold it.' : 'Played to the end.')
    })
  }
  const isShown = hasOutput(cast)
  showTables(
    byId('tables'),
    items,
    more,
    isShown
      ? (seconds) => void player?.seek(playedAt(cast, seconds, chosen('idle'))).catch(sayError)
      : undefined,
  )
  if (!isShown) {
    say('Nothing of it was shown in a terminal.')
    return
  }
  byId('replay').hidden = false
  for (const id of ['speed', 'idle']) byId(id).addEventListener('change', start)
  start()
  say(found.state === 'cut' ? 'Its broker ended before it: it breaks off.' : 'Playing.')
}

async function follow() {
  const response = await ask(`${session}/follow?format=asciicast`)
  say('It is running.')
  byId('controls').hidden = true
  /** @type {import('./tables.js').Detail[]} */
  const details = []
  const place = byId('terminal')
  const screen = live(place)
  for await (const { name, data } of eventsOf(response)) {
    if (name === 'cast') {
      byId('replay').hidden = false
      screen.take(data)
    } else if (name === 'detail' && details.length < MAX_LIVE_DETAILS) {
      details.push(JSON.parse(data))
      showTables(byId('tables'), details, [], undefined)
    } else if (name === 'end') {
      screen.end('The session is over')
      showSession(JSON.parse(data))
      say('It is over.')
      return
    }
  }
  say('The connection ended before the session. Ask for a new link.', true)
}

async function main() {
  if (!takeTicket()) {
    say('This page is opened by the link of: nestgate sessions view ID', true)
    return
  }
  trustPlayer()
  const found = await (await ask(session)).json()
  showSession(found)
  if (found.state !== 'running') {
    await replay(found)
    return
  }
  try {
    await follow()
  } catch (error) {
    // it ended in between
    if (!(error instanceof Refused) || error.code !== 'session_over') throw error
    const ended = await (await ask(session)).json()
    showSession(ended)
    await replay(ended)
  }
}

main().catch(sayError)
