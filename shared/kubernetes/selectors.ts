/**
 * Field and label selectors as kube-apiserver parses them, as far as a request's attributes hang on it: one that it cannot
 * parse voids all list options, and with them the name that a field selector pins. Source of the rules: kubernetes/apimachinery,
 * pkg/fields/selector.go, pkg/labels/selector.go, pkg/util/validation (qualified names, label values).
 */

/**
 * The value that a field selector demands of a field; empty where it demands none.
 *
 * @returns undefined where the API server cannot parse the selector
 */
export function demandedField(selector: string, field: string): string | undefined {
  const terms = splitTerms(selector).filter((term) => term !== '')
  // the server sorts terms by their bytes; of several that fit, the first one counts
  terms.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
  let demanded: string | undefined
  for (const term of terms) {
    const [, name, operator, escaped = ''] = /^(.*?)(!=|==|=)(.*)$/s.exec(term) ?? []
    const value = unescapeValue(escaped)
    if (name === undefined || value === undefined) return undefined
    if (name === field && operator !== '!=') demanded ??= value
  }
  return demanded ?? ''
}

/** Names of the fields that a field selector asks for, whether or not the API server can parse all of it. */
export function selectedFields(selector: string): readonly string[] {
  return splitTerms(selector).map((term) => /^(.*?)(?:!=|==|=|$)/s.exec(term)?.[1] ?? term)
}

/** Every word of a label selector that may be the key of a label: all of them, values among them. */
export function selectorWords(selector: string): readonly string[] {
  return tokensOf(selector).flatMap((token) => ('word' in token ? [token.word] : []))
}

/** The terms between commas that no backslash precedes. */
function splitTerms(selector: string): string[] {
  return selector.match(/(?:\\.|[^,\\]|\\$)+/gs) ?? []
}

/** A value without its backslashes; undefined where one is missing or stands before something else. */
function unescapeValue(escaped: string): string | undefined {
  return /^(?:\\[\\,=]|[^\\,=])*$/s.test(escaped)
    ? escaped.replaceAll(/\\([\\,=])/g, '$1')
    : undefined
}

/** Whether the API server can read a number here: an int64 in decimal digits. */
export function isInt64(text: string): boolean {
  if (!/^[+-]?\d+$/.test(text)) return false
  const value = BigInt(text.replace('+', ''))
  return BigInt.asIntN(64, value) === value
}

/** Whether the API server can parse a label selector. */
export function isLabelSelector(selector: string): boolean {
  const tokens = tokensOf(selector)
  return tokens.length === 0 || new LabelTerms(tokens).areValid()
}

type Token = { readonly word: string } | { readonly symbol: string }

/** `=`, `==`, `!=` and the single ones, the longest first, as its lexer takes them. */
const SYMBOL = /==|!=|[=!(),<>]/y
const BLANK = /[ \t\r\n]+/y
// eslint-disable-next-line no-control-regex -- its lexer ends a word at NUL
const WORD = /[^ \t\r\n=!(),<>\u0000]+\u0000?/y

/** Words and symbols. Its lexer passes over one NUL behind a word or symbol, and stops at any other. */
function tokensOf(selector: string): readonly Token[] {
  const tokens: Token[] = []
  let at = 0
  const take = (pattern: RegExp): string => {
    pattern.lastIndex = at
    const found = pattern.exec(selector)?.[0] ?? ''
    at += found.length
    return found
  }
  for (;;) {
    take(BLANK)
    if (at >= selector.length || selector[at] === '\u0000') return tokens
    const symbol = take(SYMBOL)
    if (symbol === '') tokens.push({ word: take(WORD).replace('\u0000', '') })
    else {
      tokens.push({ symbol })
      if (selector[at] === '\u0000') at += 1
    }
  }
}

const EXACT: ReadonlySet<string> = new Set(['=', '==', '!=', '<', '>'])
const ORDER: ReadonlySet<string> = new Set(['<', '>'])

class LabelTerms {
  readonly #tokens: readonly Token[]
  #at = 0

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens
  }

  areValid(): boolean {
    for (;;) {
      if (!this.#term()) return false
      if (this.#at === this.#tokens.length) return true
      if (!this.#takes(',')) return false
    }
  }

  #term(): boolean {
    const negated = this.#takes('!')
    const key = this.#word()
    if (key === undefined || !isLabelKey(key)) return false
    if (negated || this.#atEnd()) return true
    return this.#restriction()
  }

  #restriction(): boolean {
    const operator = this.#symbol()
    if (operator === undefined) {
      const word = this.#word()
      return (word === 'in' || word === 'notin') && this.#values()
    }
    if (!EXACT.has(operator)) return false
    this.#at += 1
    const value = this.#atEnd() ? '' : this.#word()
    if (value === undefined || !isLabelValue(value)) return false
    return !ORDER.has(operator) || isInt64(value)
  }

  /** `(a,b)`; each may be empty, but for what the server's own reading of two commas at once leaves out. */
  #values(): boolean {
    if (!this.#takes('(')) return false
    if (this.#takes(')')) return true
    for (;;) {
      const value = this.#word()
      if (value === undefined) {
        if (!this.#takes(',')) return false
        if (this.#takes(')')) return true
        this.#takes(',')
      } else {
        if (!isLabelValue(value)) return false
        if (this.#takes(')')) return true
        if (this.#symbol() !== ',') return false
      }
    }
  }

  #atEnd(): boolean {
    return this.#at === this.#tokens.length || this.#symbol() === ','
  }

  #symbol(): string | undefined {
    const token = this.#tokens[this.#at]
    return token !== undefined && 'symbol' in token ? token.symbol : undefined
  }

  #takes(symbol: string): boolean {
    if (this.#symbol() !== symbol) return false
    this.#at += 1
    return true
  }

  #word(): string | undefined {
    const token = this.#tokens[this.#at]
    if (token === undefined || !('word' in token)) return undefined
    this.#at += 1
    return token.word
  }
}

const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/
const SUBDOMAIN = /^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/
const MAX_SUBDOMAIN = 253

function isLabelKey(key: string): boolean {
  const parts = key.split('/')
  const [prefix = '', name = ''] = parts
  if (parts.length === 1) return NAME.test(key)
  return (
    parts.length === 2 &&
    NAME.test(name) &&
    prefix.length <= MAX_SUBDOMAIN &&
    SUBDOMAIN.test(prefix)
  )
}

function isLabelValue(value: string): boolean {
  return value === '' || NAME.test(value)
}
