/** Replaces what the detectors find by as many `*`, in a stream or in a text. */
import { isSecretOption } from '../objects/names.ts'
import { DETECTORS } from './table.ts'
import { goesOn, takeOpen, type Open } from './matcher.ts'
import { CONTEXT_BYTES, Scanner, type Ending, type Region } from './scan.ts'

/** Most bytes that a masker keeps back: longer beginnings of a secret there are not, which a test checks against the table. */
export const MAX_HELD_BYTES = 8 * 1024

/** Bytes that are decided on. */
export interface Masked {
  /** Belong to the caller's piece where nothing was found or kept back; never changed later. */
  readonly bytes: Buffer
  /** What was replaced, in order, not overlapping. One that goes on in the next piece has another region there, at offset 0. */
  readonly regions: readonly MaskedRegion[]
}

/** Bytes that were replaced; line ends among them stay. */
export interface MaskedRegion {
  /** Within {@link Masked.bytes}. */
  readonly offset: number
  readonly length: number
  /** `id` of the detector. */
  readonly detector: string
}

/** Masks one stream. What comes out does not depend on how the stream was split. */
export interface TextMasker {
  /** Takes a piece. @returns what is now decided, in order: as many bytes as came in, less what is kept back */
  push(bytes: Buffer): Masked
  /**
   * Gives out all that was kept back, at the end or because it has to be written now. The stream may go on: what has begun as a secret is
   * masked to its end. A short value whose end would have shown it to be none may be masked.
   */
  flush(): Masked
  /** Bytes kept back, at most `MAX_HELD_BYTES`. */
  readonly held: number
}

const NOTHING = Buffer.alloc(0)
const STAR = 0x2a
const LINE_FEED = 0x0a
const CARRIAGE_RETURN = 0x0d

const scanner = new Scanner(DETECTORS)

/** Begins to mask a stream. */
export function createTextMasker(): TextMasker {
  return new Masker()
}

/** What stands in a whole text, in order and not overlapping. @param bytes - UTF-8 */
export function findSecrets(bytes: Buffer): readonly MaskedRegion[] {
  const { regions } = scanner.scan({ bytes, context: NOTHING, from: 0, ending: 'end' })
  return regions.length === 0 ? [] : inOrder(regions, 0, bytes.length)
}

/** Masks a whole text. @returns `detectors`: what found something, each once, in order of the text */
export function maskText(text: string): { text: string; detectors: readonly string[] } {
  const bytes = Buffer.from(text, 'utf8')
  const scanned = { bytes, context: NOTHING, from: 0, ending: 'end' } as const
  const { regions } = scanner.scan(scanned)
  if (regions.length === 0) return { text, detectors: [] }
  const masked = masks(bytes, 0, bytes.length, regions)
  return {
    text: masked.bytes.toString('utf8'),
    detectors: [...new Set(masked.regions.map(({ detector }) => detector))],
  }
}

/** Masks the words of a command, each on its own and in view of those before it: `mysql -psecret`, `--token abc`. */
export function maskArguments(words: readonly string[]): readonly string[] {
  const bytes = Buffer.from(words.join(' '), 'utf8')
  const { regions } = scanner.scan({ bytes, context: NOTHING, from: 0, ending: 'end' })
  const masked = masks(bytes, 0, bytes.length, regions).bytes
  let at = 0
  return words.map((word, index) => {
    const length = Buffer.byteLength(word)
    const own = masked.toString('utf8', at, at + length)
    at += length + 1
    return isSecretOption(words[index - 1] ?? '') ? '*'.repeat(length) : own
  })
}

class Masker implements TextMasker {
  /** Bytes that are not decided on. */
  #waiting: Buffer = NOTHING
  /** How many of them a flush has given out already. */
  #shown = 0
  /** The bytes before them. */
  #context: Buffer = NOTHING
  #opens: readonly Open[] = []

  get held(): number {
    return this.#waiting.length - this.#shown
  }

  push(bytes: Buffer): Masked {
    const whole = this.#waiting.length === 0 ? bytes : Buffer.concat([this.#waiting, bytes])
    return this.#take(whole, 'more')
  }

  flush(): Masked {
    return this.#take(this.#waiting, 'now')
  }

  #take(bytes: Buffer, ending: Ending): Masked {
    const { regions, from, opens } = this.#continue(bytes)
    const scan = scanner.scan({ bytes, context: this.#context, from, ending })
    this.#opens = [...opens, ...scan.opens]
    // An open secret may leave a byte undecided, and only that.
    const hold = opens.length > 0 ? from : scan.hold
    const start = this.#shown
    const end = ending === 'more' ? Math.max(hold, start) : bytes.length
    this.#keep(bytes, hold, end)
    return masks(bytes, start, end, regions.concat(scan.regions))
  }

  /** Takes what belongs to secrets that go on. */
  #continue(bytes: Buffer): { regions: Region[]; from: number; opens: Open[] } {
    const regions: Region[] = []
    const opens: Open[] = []
    let from = 0
    for (const open of this.#opens) {
      const to = takeOpen(open, bytes, 0)
      if (to > 0) regions.push({ from: 0, to, detector: open.detector })
      if (goesOn(open, bytes, to)) opens.push(open)
      from = Math.max(from, to)
    }
    return { regions, from, opens }
  }

  /** Keeps what is undecided, and what stood before it: copies, as the piece is the caller's. */
  #keep(bytes: Buffer, hold: number, end: number): void {
    const before = bytes.subarray(Math.max(0, hold - CONTEXT_BYTES), hold)
    const missing = CONTEXT_BYTES - before.length
    this.#context =
      missing > 0 ? Buffer.concat([this.#context.subarray(-missing), before]) : Buffer.from(before)
    this.#waiting = hold === bytes.length ? NOTHING : Buffer.from(bytes.subarray(hold))
    this.#shown = end - hold
  }
}

/** The bytes from `start` to `end`, masked. */
function masks(bytes: Buffer, start: number, end: number, found: readonly Region[]): Masked {
  const piece = bytes.subarray(start, end)
  if (found.length === 0) return { bytes: piece, regions: [] }
  const regions = inOrder(found, start, end)
  if (regions.length === 0) return { bytes: piece, regions }
  const masked = Buffer.from(piece)
  for (const { offset, length } of regions)
    for (let at = offset; at < offset + length; at++)
      if (masked[at] !== LINE_FEED && masked[at] !== CARRIAGE_RETURN) masked[at] = STAR
  return { bytes: masked, regions }
}

/** Regions of the piece, in order; where two overlap, the second has what the first leaves. */
function inOrder(found: readonly Region[], start: number, end: number): readonly MaskedRegion[] {
  const regions: MaskedRegion[] = []
  let done = start
  for (const { from, to, detector } of found.toSorted((a, b) => a.from - b.from)) {
    const first = Math.max(from, done)
    const last = Math.min(to, end)
    if (last <= first) continue
    regions.push({ offset: first - start, length: last - first, detector })
    done = last
  }
  return regions
}
