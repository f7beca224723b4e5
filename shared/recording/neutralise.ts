/**
 * What of a terminal's output is safe to show to somebody else: an allowlist over ECMA-48 as xterm speaks it. Printing text, moving the
 * cursor, colours, erasing and scrolling pass; whatever makes a terminal answer, or acts on more than the screen (titles, clipboard, files,
 * windows, keyboard and mouse modes, resets), is dropped. `kubectl` let all of it through until CVE-2021-25743.
 */

/** Longest control sequence that is waited for, in characters; what is longer is dropped up to there, and the rest is text. */
export const MAX_SEQUENCE_CHARACTERS = 256
/** The same of control strings (OSC, DCS, APC, PM, SOS), which are dropped. */
export const MAX_STRING_CHARACTERS = 4096
/** Most that a parameter of a sequence may be: no screen is larger. */
const MAX_PARAMETER = 9999
/** Most that one character is repeated by one sequence (REP). */
export const MAX_REPEAT = 1000
/** Most parameters of one sequence. */
const MAX_PARAMETERS = 32

/** Makes output safe, piece by piece: the pieces' results together are the same wherever it is cut. */
export interface Neutraliser {
  /** @param text - well-formed; whole characters. @returns text whose sequences are all whole, and allowed */
  text(text: string): string
  /** What brings a terminal back that has shown everything up to here: the normal screen, cursor, colours, characters. */
  reset(): string
}

/** Makes one, for one terminal. Its methods never throw. */
export function createNeutraliser(): Neutraliser {
  return new Machine()
}

/** Text that is one line of a label or a title: every control is shown by its number, too. */
export function visible(text: string): string {
  return text
    .toWellFormed()
    .replaceAll(NOT_PLAIN, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`)
}

/** Printed as it is: no control, and nothing that hides, or reorders what is around it. Emoji keep their variation selectors. */
const PLAIN =
  /(?:[\ufe00-\ufe0f]|[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Default_Ignorable_Code_Point}])+/uy

const NOT_PLAIN = /(?![\ufe00-\ufe0f])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu

/** Controls that pass: backspace, tab, carriage return, line feed, and the shifts between the two character sets. */
const PASSED_CONTROLS = '\b\t\r\n\u000e\u000f'
/** Vertical tab and form feed are line feeds. */
const LINE_FEEDS = '\v\f'
/** CAN and SUB end any sequence. */
const CANCELS = '\u0018\u001a'
const ESC = '\u001b'
const CSI = `${ESC}[`
const DEL = '\u007f'

/** By final character of a sequence without prefix: how many parameters it may have. */
const SEQUENCES: ReadonlyMap<string, number> = new Map([
  // insert and delete: characters, lines; erase characters
  ...pairs('@LMPX', 1),
  // cursor: up, down, forward, back, lines, columns, tabs
  ...pairs('ABCDEFGIZ`ade', 1),
  ...pairs('Hf', 2),
  // erase in display and line; scroll; clear tabs; repeat. T with more parameters tracks the mouse.
  ...pairs('JKSTgb', 1),
  // colours, and the scrolled region
  ['m', MAX_PARAMETERS],
  ['r', 2],
  // save and restore the cursor; s with parameters is another sequence
  ...pairs('su', 0),
])

/** Modes after `?`: origin, wrapping, cursor, and the alternate screen in its forms. */
const PRIVATE_MODES: ReadonlySet<string> = new Set(['6', '7', '25', '47', '1047', '1048', '1049'])
const ALTERNATE: ReadonlySet<string> = new Set(['47', '1047', '1049'])
/** Modes without prefix: inserting. */
const MODES: ReadonlySet<string> = new Set(['4'])
/** After ESC alone: save and restore the cursor, index, next line, tab stop, reverse index. */
const ESCAPES = '78DEHM'
/** G0 and G1 as ASCII or line drawing. */
const CHARSETS: ReadonlySet<string> = new Set(['(B', '(0', ')B', ')0'])
/** ESC c resets far more than the screen. */
const CLEAR = `${CSI}0m${ESC}(B\u000f${CSI}r${CSI}H${CSI}2J`
/** Of SGR: colours of text, ground and underline, with how many parameters follow by the first of them; and concealing. */
const COLOUR_CODES = ['38', '48', '58']
const COLOUR_PARAMETERS: ReadonlyMap<string, number> = new Map([
  ['5', 2],
  ['2', 4],
])
const CONCEAL = '8'
/** Characters after ESC that begin a control string: DCS, SOS, OSC, PM, APC. */
const STRINGS = 'PX]^_'

type State = 'ground' | 'escape' | 'sequence' | 'string'

class Machine implements Neutraliser {
  #state: State = 'ground'
  /** Of the sequence that has begun, what is behind its introducer. */
  #begun = ''
  /** Characters of the string that is dropped. */
  #dropped = 0
  #alternate = false
  #region = false

  text(text: string): string {
    let out = ''
    let at = 0
    while (at < text.length) {
      if (this.#state === 'ground') {
        const run = plainRun(text, at)
        out += run
        at += run.length
      }
      const character = String.fromCodePoint(text.codePointAt(at) ?? 0)
      if (at < text.length) out += this.#take(character)
      at += character.length
    }
    return out
  }

  reset(): string {
    const screen = this.#alternate ? `${CSI}?1049l` : ''
    const region = this.#region ? `${CSI}?6l${CSI}r${CSI}${MAX_PARAMETER};1H` : ''
    return `${screen}${region}${CSI}4l${CSI}?7h${CSI}?25h${ESC}(B\u000f${CSI}0m`
  }

  #take(character: string): string {
    if (character === ESC) return this.#enter('escape')
    if (CANCELS.includes(character)) return this.#enter('ground')
    if (character >= '\u0080' && character <= '\u009f') return this.#takeC1(character)
    switch (this.#state) {
      case 'ground':
        return shown(character)
      case 'escape':
        return this.#takeEscape(character)
      case 'sequence':
        return this.#takeSequence(character)
      case 'string':
        return this.#takeString(character)
    }
  }

  #enter(state: State): string {
    this.#state = state
    this.#begun = ''
    this.#dropped = 0
    return ''
  }

  /** The eight-bit form of ESC and another character. */
  #takeC1(character: string): string {
    this.#enter('escape')
    return this.#takeEscape(String.fromCharCode(character.charCodeAt(0) - 0x40))
  }

  #takeEscape(character: string): string {
    if (isControl(character)) return shown(character)
    if (!isAscii(character)) return this.#abort(character)
    if (this.#begun === '') {
      if (character === '[') return this.#enter('sequence')
      if (STRINGS.includes(character)) return this.#enter('string')
    }
    this.#begun += character
    if (character < '0')
      return this.#begun.length < MAX_SEQUENCE_CHARACTERS ? '' : this.#enter('ground')
    const whole = this.#begun
    this.#enter('ground')
    return this.#escape(whole)
  }

  #escape(whole: string): string {
    if (whole === 'c') {
      this.#region = false
      return CLEAR
    }
    const allowed = whole.length === 1 ? ESCAPES.includes(whole) : CHARSETS.has(whole)
    return allowed ? ESC + whole : ''
  }

  #takeSequence(character: string): string {
    // terminals carry controls out within a sequence, and go on with it
    if (isControl(character)) return shown(character)
    if (!isAscii(character)) return this.#abort(character)
    if (character < '@') {
      this.#begun += character
      return this.#begun.length < MAX_SEQUENCE_CHARACTERS ? '' : this.#enter('ground')
    }
    const parameters = this.#begun
    this.#enter('ground')
    return this.#sequence(parameters, character)
  }

  #sequence(parameters: string, final: string): string {
    const [, prefix = '', list] = /^(\??)([\d;:]*)$/.exec(parameters) ?? []
    if (list === undefined) return ''
    const values = list.split(';').map(bounded)
    if (values.length > MAX_PARAMETERS) return ''
    if ('hl'.includes(final)) return this.#modes(prefix, values, final)
    if (prefix === '?') return erases(list, final) ? `${CSI}?${list}${final}` : ''
    if (!fits(list, values, final)) return ''
    if (final === 'm') return colours(values)
    if (final === 'r') this.#region = true
    if (final === 'b') return `${CSI}${Math.min(Number(list), MAX_REPEAT)}b`
    return `${CSI}${values.join(';')}${final}`
  }

  /** Of several modes, those that are allowed. */
  #modes(prefix: string, values: readonly string[], final: string): string {
    const known = prefix === '?' ? PRIVATE_MODES : MODES
    const kept = values.filter((value) => known.has(value))
    if (prefix === '?' && kept.includes('6')) this.#region = true
    if (prefix === '?' && kept.some((value) => ALTERNATE.has(value)))
      this.#alternate = final === 'h'
    return kept.length === 0 ? '' : `${CSI}${prefix}${kept.join(';')}${final}`
  }

  #takeString(character: string): string {
    this.#dropped += 1
    const ended = character === '\u0007' || this.#dropped >= MAX_STRING_CHARACTERS
    return ended ? this.#enter('ground') : ''
  }

  /** What cannot stand in a sequence ends it, and is itself shown. */
  #abort(character: string): string {
    this.#enter('ground')
    return plainRun(character, 0) || shown(character)
  }
}

function pairs(finals: string, parameters: number): [string, number][] {
  return finals.split('').map((final) => [final, parameters])
}

function plainRun(text: string, at: number): string {
  PLAIN.lastIndex = at
  return PLAIN.exec(text)?.[0] ?? ''
}

/** What stands for a character that is not printed as it is: itself, nothing, or for one that hides its number. */
function shown(character: string): string {
  if (PASSED_CONTROLS.includes(character)) return character
  if (LINE_FEEDS.includes(character)) return '\n'
  if (isControl(character)) return ''
  if (!character.isWellFormed()) return '\ufffd'
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`
}

function isControl(character: string): boolean {
  return character < ' ' || character === DEL
}

function isAscii(character: string): boolean {
  return character < DEL
}

/** A parameter, with its subparameters, held within what a screen can have. */
function bounded(parameter: string): string {
  return parameter
    .split(':')
    .map((value) => (value === '' ? '' : String(Math.min(Number(value), MAX_PARAMETER))))
    .join(':')
}

/** Whether the sequence may have these parameters. Subparameters are those of colours only. */
function fits(list: string, values: readonly string[], final: string): boolean {
  const most = SEQUENCES.get(final)
  if (most === undefined) return false
  if (final !== 'm' && list.includes(':')) return false
  // J with 3 empties what has been scrolled away, which is the viewer's
  if (final === 'J') return erases(list, final)
  return list === '' || values.length <= most
}

/** Colours and the like (SGR), but for concealing, which would hide from a viewer what was written. */
function colours(values: readonly string[]): string {
  const kept: string[] = []
  for (let at = 0; at < values.length; at += 1) {
    const value = values[at] ?? ''
    // a colour by its number, or by red, green and blue: its own parameters are no codes
    const own = COLOUR_CODES.includes(value)
      ? (COLOUR_PARAMETERS.get(values[at + 1] ?? '') ?? 0)
      : 0
    if (value.split(':')[0] !== CONCEAL) kept.push(...values.slice(at, at + own + 1))
    at += own
  }
  return kept.length === 0 ? '' : `${CSI}${kept.join(';')}m`
}

/** Whether it erases in the display, or a line: to the end, from the beginning, or all of it. */
function erases(list: string, final: string): boolean {
  return 'JK'.includes(final) && /^[012]?$/.test(list)
}
