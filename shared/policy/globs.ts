/**
 * Patterns of policies and registrations. What they are held against was chosen by others, file names with line
 * breaks included, so every character counts as one: no pattern is evaded by a name that looks odd.
 */

/** Matches a whole path: `*` stays within a segment, `**` does not, everything else is itself. */
export function pathPattern(word: string): RegExp {
  return compile(word, (stars) => (stars === '*' ? '[^/]*' : '.*'))
}

/** Matches a whole name: `*` is any text, slashes included, so that `unregistered/*` covers all of them. */
export function namePattern(word: string): RegExp {
  return compile(word, () => '.*')
}

function compile(word: string, wildcard: (stars: string) => string): RegExp {
  const source = word
    .split(/(\*+)/)
    .map((part) => (/^\*+$/.test(part) ? wildcard(part) : RegExp.escape(part)))
    .join('')
  return new RegExp(`^${source}$`, 'su')
}
