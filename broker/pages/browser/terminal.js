/** The terminal: plays what was recorded, or shows what comes. */

/** Largest terminal that is shown: the recorded size is whatever the client said it had. */
const MAX_COLS = 500
const MAX_ROWS = 200
const DEFAULT_COLS = 80
const DEFAULT_ROWS = 24

/** @typedef {[number, string, string]} CastEvent */
/** @typedef {{version: 3, term: {cols: number, rows: number}}} CastHeader */
/** @typedef {{play(): unknown, dispose(): void, seek(at: number): Promise<unknown>, addEventListener(name: string, tell: () => void): void}} Player */

/** @param {unknown} value @param {number} most @param {number} otherwise */
function bounded(value, most, otherwise) {
  const number = Math.floor(Number(value))
  return number >= 1 ? Math.min(number, most) : otherwise
}

/** @param {string} line @returns {CastHeader} */
export function headerOf(line) {
  const { term } = JSON.parse(line)
  const cols = bounded(term?.cols, MAX_COLS, DEFAULT_COLS)
  return { version: 3, term: { cols, rows: bounded(term?.rows, MAX_ROWS, DEFAULT_ROWS) } }
}

/** A line of an asciicast v3, with a resize held within what is shown. @param {string} line @returns {CastEvent} */
export function eventOf(line) {
  const [interval, code, data] = JSON.parse(line)
  const event = /** @type {CastEvent} */ ([Number(interval), String(code), String(data)])
  if (code === 'r') {
    const [cols, rows] = String(data).split('x')
    event[2] = `${bounded(cols, MAX_COLS, DEFAULT_COLS)}x${bounded(rows, MAX_ROWS, DEFAULT_ROWS)}`
  }
  return event
}

/** An asciicast as the player takes it. @param {string} text @returns {(CastHeader | CastEvent)[]} */
export function parseCast(text) {
  const [first = '{}', ...lines] = text.split('\n')
  return [headerOf(first), ...lines.filter((line) => line.startsWith('[')).map(eventOf)]
}

/** @param {readonly (CastHeader | CastEvent)[]} cast - whether anything is shown in a terminal */
export function hasOutput(cast) {
  return cast.some((event) => Array.isArray(event) && event[1] === 'o')
}

/**
 * Where the player is at a time of the recording, when it shortens pauses: both in seconds.
 *
 * @param {readonly (CastHeader | CastEvent)[]} cast
 * @param {number} seconds
 * @param {number} idle - longest pause, 0 for none that is shortened
 */
export function playedAt(cast, seconds, idle) {
  const most = idle > 0 ? idle : Infinity
  let left = seconds
  let played = 0
  for (const event of cast) {
    if (!Array.isArray(event)) continue
    if (event[0] >= left) return played + Math.min(left, most)
    left -= event[0]
    played += Math.min(event[0], most)
  }
  return played
}

/**
 * Plays a recording.
 *
 * @param {HTMLElement} place
 * @param {readonly (CastHeader | CastEvent)[]} cast
 * @param {{speed: number, idle: number}} options
 * @returns {Player}
 */
export function play(place, cast, { speed, idle }) {
  return window.AsciinemaPlayer.create({ data: () => [...cast] }, place, {
    ...{ fit: 'width', controls: true, terminalFontFamily: '"DejaVu Sans Mono", monospace' },
    ...{ autoPlay: true, speed, preload: true },
    ...(idle > 0 ? { idleTimeLimit: idle } : {}),
  })
}

/**
 * Shows a session while it runs.
 *
 * @param {HTMLElement} place
 * @returns {{take(line: string): void, end(message: string): void, player: Player}}
 */
export function live(place) {
  /** @type {((name: string, data?: unknown) => void)[]} */
  const told = []
  /** @type {[string, unknown][]} */
  let early = []
  let seconds = 0
  let began = false
  /** @param {string} name @param {unknown} [data] */
  const tell = (name, data) => {
    if (told[0] === undefined) early.push([name, data])
    else told[0](name, data)
  }
  const sampledAt = () => performance.timeOrigin + performance.now()
  const timing = (/** @type {number} */ rate) => ({ time: seconds, rate, sampledAt: sampledAt() })
  /** @param {{dispatch(name: string, data?: unknown): void}} core */
  const driver = ({ dispatch }) => ({
    play() {
      if (told[0] === undefined) {
        told.push(dispatch)
        dispatch('play')
        for (const [name, data] of early) dispatch(name, data)
        early = []
      }
      return true
    },
    getTiming: () => timing(0),
  })
  // its types leave out that a source may be made by a function
  const source = /** @type {any} */ (driver)
  const player = window.AsciinemaPlayer.create(source, place, {
    ...{ fit: 'width', autoPlay: true, terminalFontFamily: '"DejaVu Sans Mono", monospace' },
  })
  return {
    player,
    take(line) {
      if (!began) {
        began = true
        tell('reset', { size: headerOf(line).term })
        tell('playing')
        return
      }
      const [interval, code, data] = eventOf(line)
      seconds += interval
      tell('timing', timing(0))
      if (code === 'o') tell('output', data)
      if (code !== 'r') return
      const [cols, rows] = data.split('x').map(Number)
      tell('resize', { cols, rows })
    },
    end(message) {
      tell('ended', { message })
    },
  }
}
