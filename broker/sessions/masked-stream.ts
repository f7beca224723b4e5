/** One stream on its way into a recording: secrets masked, and each byte at the time at which it came, however long the masker kept it. */
import { createTextMasker } from '../masking/detectors/masker.ts'
import type { Masked } from '../masking/detectors/masker.ts'

/** How long what may still become a secret is kept back, in milliseconds: it is not durable meanwhile. */
const HOLD_MS = 500

/** See the head of the file. */
export interface MaskedStream {
  push(bytes: Buffer, atUs: number): void
  /** Writes all that is left. */
  flush(): void
  /** Bytes that are kept back. */
  readonly held: number
  /** When the first of them came; Infinity where none is. */
  readonly heldSinceUs: number
}

/** Where masked bytes go. */
export interface MaskedSink {
  write(bytes: Buffer, atUs: number): void
  masked(region: { readonly detector: string; readonly length: number }, atUs: number): void
}

/** Makes one. @param mask - false lets all through as it is */
export function createMaskedStream(mask: boolean, sink: MaskedSink): MaskedStream {
  if (!mask)
    return {
      push(bytes, atUs) {
        sink.write(bytes, atUs)
      },
      flush: () => undefined,
      held: 0,
      heldSinceUs: Infinity,
    }
  return new Masking(sink)
}

interface Piece {
  readonly atUs: number
  left: number
}

class Masking implements MaskedStream {
  readonly #sink: MaskedSink
  readonly #masker = createTextMasker()
  /** Of what the masker has kept: when it came. */
  #pieces: Piece[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(sink: MaskedSink) {
    this.#sink = sink
  }

  get held(): number {
    return this.#masker.held
  }

  get heldSinceUs(): number {
    return this.#pieces.find(({ left }) => left > 0)?.atUs ?? Infinity
  }

  push(bytes: Buffer, atUs: number): void {
    if (bytes.length === 0) return
    this.#pieces.push({ atUs, left: bytes.length })
    this.#emit(this.#masker.push(bytes))
    if (this.#pieces.length === 0) this.#clear()
    else
      this.#timer ??= setTimeout(() => {
        this.flush()
      }, HOLD_MS)
  }

  flush(): void {
    this.#clear()
    this.#emit(this.#masker.flush())
  }

  #clear(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #emit({ bytes, regions }: Masked): void {
    let from = 0
    let done = 0
    for (const piece of this.#pieces) {
      if (from === bytes.length) break
      const take = Math.min(piece.left, bytes.length - from)
      piece.left -= take
      this.#sink.write(bytes.subarray(from, from + take), piece.atUs)
      for (const region of regions)
        if (region.offset >= from && region.offset < from + take)
          this.#sink.masked(region, piece.atUs)
      from += take
      if (piece.left === 0) done += 1
    }
    if (done > 0) this.#pieces = this.#pieces.slice(done)
  }
}
