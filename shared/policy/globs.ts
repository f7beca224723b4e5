/**
 * Patterns of policies and registrations. What they are held against was chosen by others, file names with line
 * breaks included, so every character counts as one: no pattern is evaded by a name that looks odd. The time is
 * bounded for any pattern and text (a regular expression with several stars has no such bound).
 */

/** A pattern for whole texts. */
export interface Pattern {
  readonly test: (text: string) => boolean
}

/** Matches a whole path: `*` stays within a segment, `**` does not, everything else is itself. */
export function pathPattern(word: string): Pattern {
  const tokens = word.split(/(\*+)/).flatMap((part) => {
    if (part === '*') return ['*']
    return part.startsWith('**') ? ['**'] : part.split('')
  })
  return { test: (text) => matchesPath(tokens, text) }
}

/** Matches a whole name: `*` is any text, slashes included, so that `unregistered/*` covers all of them. */
export function namePattern(word: string): Pattern {
  const [first = '', ...rest] = word.split(/\*+/)
  const last = rest.pop()
  if (last === undefined) return { test: (text) => text === word }
  return {
    test(text) {
      if (!text.startsWith(first) || !text.endsWith(last)) return false
      let from = first.length
      for (const part of rest) {
        const at = text.indexOf(part, from)
        if (at === -1) return false
        from = at + part.length
      }
      return from <= text.length - last.length
    },
  }
}

/** Where matching goes on when it fails later: a star, and how far its text reaches. */
interface Resumption {
  readonly token: number
  at: number
}

/**
 * Takes as little as possible for each star and gives the latest one more when the rest does not fit: one `*` cannot cross a
 * slash, so that an earlier one could not help it, and behind a `**` an earlier one has no more to offer. At most
 * as many steps as text times text times tokens; paths are some hundred characters.
 */
function matchesPath(tokens: readonly string[], text: string): boolean {
  let token = 0
  let at = 0
  let star: Resumption | undefined
  let anything: Resumption | undefined
  for (;;) {
    const wanted = tokens[token]
    if (wanted === '**') {
      anything = { token: (token += 1), at }
      star = undefined
    } else if (wanted === '*') {
      star = { token: (token += 1), at }
    } else if (wanted !== undefined && wanted === text[at]) {
      token += 1
      at += 1
    } else if (wanted === undefined && at === text.length) {
      return true
    } else {
      star = withinSegment(star, text)
      const grown = grow(star ?? anything, text)
      if (grown === undefined) return false
      ;({ at, token } = grown)
    }
  }
}

/** A `*` that can take another character; undefined for one that cannot. */
function withinSegment(star: Resumption | undefined, text: string): Resumption | undefined {
  return star === undefined || (text[star.at] ?? '/') === '/' ? undefined : star
}

/** Gives a star one character more. @returns undefined where there is none */
function grow(star: Resumption | undefined, text: string): Resumption | undefined {
  if (star === undefined || star.at >= text.length) return undefined
  star.at += 1
  return star
}
