/**
 * The corpus of answers for tests of masking. `corpus/masking/` has answers as API servers give them, `corpus/masking-fuzz/` what the fuzzer
 * found to be of a new kind. What an answer is stands in its name: `watch-…` is a watch, `written-…` the answer to a write.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import type { Input } from './masking-fuzz.ts'

const TRUE_CORPUS = new URL('corpus/masking/', import.meta.url)
/** What the fuzzer keeps. */
export const KEPT_CORPUS = new URL('corpus/masking-fuzz/', import.meta.url)

/** Answers as API servers give them. */
export function readAnswers(): readonly Input[] {
  return readFolder(TRUE_CORPUS)
}

/** All there is, in order of names. */
export function readCorpus(): readonly Input[] {
  return [...readAnswers(), ...readFolder(KEPT_CORPUS)]
}

/** The name of the file of an input. */
export function nameOf({ name, shape, write }: Input): string {
  const kind = shape === 'watch' ? 'watch-' : write ? 'written-' : ''
  return `${kind}${name}.txt`
}

function readFolder(folder: URL): readonly Input[] {
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .sort()
    .map((name) => ({
      name,
      bytes: readFileSync(new URL(name, folder)),
      shape: name.startsWith('watch-') ? 'watch' : 'object',
      write: name.startsWith('written-'),
    }))
}
