/** A recording as an asciicast v3, with what in it could harm who looks at it taken out. */
import { createAsciicast } from '../../shared/recording/asciicast.ts'
import type { SessionDetail } from '../../shared/recording/session-wire.ts'
import { detailOf } from './session-details.ts'
import { viewsOf } from './session-events.ts'

/** The file, line by line; throws as viewsOf does. */
export async function* castOf(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const cast = createAsciicast()
  for await (const view of viewsOf(bytes)) yield* cast.event(view)
  yield* cast.end()
}

/** A line of the file, without its line feed, or what of a recording is no output. */
export type LivePart = { readonly line: string } | { readonly detail: SessionDetail }

/** The same of a session that still runs: nothing is kept back for a terminal's first size. @param bytes - each piece whole events */
export async function* liveCast(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<LivePart> {
  const cast = createAsciicast()
  for await (const piece of bytes) {
    for await (const view of viewsOf(only(piece))) {
      yield* asParts(cast.event(view))
      const detail = detailOf(view)
      if (detail !== undefined) yield { detail }
    }
    yield* asParts(cast.flush())
  }
  yield* asParts(cast.end())
}

function asParts(lines: readonly string[]): LivePart[] {
  return lines.map((line) => ({ line: line.trimEnd() }))
}

async function* only(piece: Uint8Array): AsyncGenerator<Uint8Array> {
  await Promise.resolve()
  yield piece
}
