/** What a row of the table of detectors is. */
import type { ByteClass } from './classes.ts'
import type { Form, Part } from './matcher.ts'

/** Finds one kind of secret behind one of its keywords. */
export interface Detector {
  /** Stands in markers and in regions. */
  readonly id: string
  /** What it finds, for docs/detectors.md. */
  readonly finds: string
  /** Without one of them nothing is found; at least three bytes, ASCII. */
  readonly keywords: readonly string[]
  /** Keywords in any case. */
  readonly fold?: true
  /** The byte before the keyword has to be one of these; the beginning of the text and terminal colours count as one. */
  readonly before?: ByteClass
  /** What follows the keyword in each form. */
  readonly lead?: readonly Part[]
  /** The first form that matches behind keyword and lead counts. */
  readonly forms: readonly Form[]
}
