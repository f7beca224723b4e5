/** What a session's streams look like on one terminal: text, decoded and safe to show. */
import { createNeutraliser } from './neutralise.ts'

/** Bytes of several streams, as the one terminal would show them. Pieces together are the same wherever the streams are cut. */
export interface TerminalText {
  /** @returns text whose characters and sequences are whole; what is unfinished comes with the next bytes of its stream */
  write(stream: OutputStream, bytes: Uint8Array): string
  /** The stream is over: what was unfinished in it is shown as U+FFFD. */
  end(stream: OutputStream): string
  /** What brings a real terminal back afterwards. */
  reset(): string
}

/** Streams that a terminal shows. */
export type OutputStream = 'stdout' | 'stderr'

/**
 * Makes it, for one session.
 *
 * @param tty - without a terminal nothing made line feeds into new lines: that is done here
 * @param raw - leaves control sequences as they are; for files, never for a terminal
 */
export function createTerminalText(tty: boolean, raw = false): TerminalText {
  const neutraliser = createNeutraliser()
  // a mark of byte order is a character like any other, and one that hides
  const decoders = { stdout: createDecoder(), stderr: createDecoder() }
  let afterReturn = false

  function place(text: string): string {
    const safe = raw ? text : neutraliser.text(text)
    if (tty || safe === '') return safe
    const lines = safe.replaceAll(/(\r?)\n/g, (_, before, offset) =>
      before === '' && offset === 0 && afterReturn ? '\n' : '\r\n',
    )
    afterReturn = safe.endsWith('\r')
    return lines
  }

  return {
    write: (stream, bytes) => place(decoders[stream](bytes)),
    end: (stream) => place(decoders[stream]()),
    reset: () => neutraliser.reset(),
  }
}

/** Decodes UTF-8 as it comes, and says what is left when called without bytes; what is none becomes U+FFFD. */
export function createDecoder(): (bytes?: Uint8Array) => string {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  return (bytes) =>
    bytes === undefined ? decoder.decode() : decoder.decode(bytes, { stream: true })
}
