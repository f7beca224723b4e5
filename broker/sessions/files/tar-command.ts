/** Programs that write and read tar archives. */
const PROGRAMS = /(?:^|\/)(?:tar|bsdtar|gtar|gnutar)$/

/**
 * Which stream of a command may be a tar archive, by its words: `tar cf - …` writes one, `tar -xmf - …` reads one. A guess that is wrong
 * does no harm, as what is no archive is recorded as output (`watchTar`).
 *
 * @param command - argv; a script of a shell counts by its words
 */
export function tarStream(command: readonly string[]): 'stdin' | 'stdout' | undefined {
  const words = command.flatMap((word) => word.split(/\s+/))
  const program = words.findIndex((word) => PROGRAMS.test(word))
  if (program === -1) return undefined
  const [first = '', ...others] = words.slice(program + 1)
  // The first word may have its letters without a dash.
  const letters = first.startsWith('-') ? [first, ...others] : [`-${first}`, ...others]
  for (const word of letters) {
    const found = direction(word)
    if (found !== undefined) return found
  }
  return undefined
}

function direction(word: string): 'stdin' | 'stdout' | undefined {
  if (word === '--create') return 'stdout'
  if (/^--(?:extract|get|list|diff|compare)$/.test(word)) return 'stdin'
  const [, letters] = /^-([A-Za-z]+)$/.exec(word) ?? []
  if (letters === undefined) return undefined
  if (letters.includes('c')) return 'stdout'
  return /[xtd]/.test(letters) ? 'stdin' : undefined
}
