/** Goes over bytes once and finds what the detectors find. Says nothing that further bytes could change. */
import { DIGIT, anyOf, bytesOf, type ByteClass } from './classes.ts'
import type { Detector } from './detector.ts'
import {
  compile,
  firstOfForm,
  MORE,
  sequence,
  tryForm,
  type Compiled,
  type Match,
  type Open,
  type Step,
  type Text,
  type Verdict,
} from './matcher.ts'
import { Prefilter, type Candidate } from './prefilter.ts'

/** Bytes `from` to `to` are a secret. */
export interface Region {
  readonly from: number
  readonly to: number
  readonly detector: string
}

/** What a scan found. */
export interface Scan {
  /** In any order, may overlap. */
  readonly regions: Region[]
  /** Secrets that go on behind the bytes. */
  readonly opens: Open[]
  /** Where the bytes begin that are not decided on. */
  readonly hold: number
}

/** Bytes before a keyword that are looked at: as long as a sequence of colours. */
export const CONTEXT_BYTES = 16

/** Bytes and what stood before them. */
export interface Scanned {
  readonly bytes: Buffer
  /** The last `CONTEXT_BYTES` before `bytes`, or what there is. */
  readonly context: Buffer
  /** Position in `bytes` where the scan begins. */
  readonly from: number
  readonly ending: Ending
}

/**
 * What follows the bytes: `more`, so that what is undecided waits; nothing (`end`); or nothing that could be waited for (`now`): then what
 * is undecided counts as if the text ended here, and a secret that has begun counts as one.
 */
export type Ending = 'more' | 'now' | 'end'

interface Finder {
  /** Bytes that may follow the keyword. */
  readonly next: ByteClass
  readonly lead: Step
  readonly before: ByteClass | undefined
  readonly forms: readonly Compiled[]
}

const ESCAPE = 0x1b
const BRACKET = 0x5b
const BACKSLASH = 0x5c
const COLOUR_END = bytesOf('mK')
const COLOUR_BODY = anyOf(DIGIT, bytesOf(';'))
const ESCAPED_BLANK = bytesOf('nrt')

const NO: Verdict = { is: 'no' }
const NOT_YET: Verdict = { is: 'more' }

/** Detectors made ready, once. */
export class Scanner {
  readonly #filter: Prefilter<Finder>

  /** @param detectors - of two that find the same, the one that comes first names it */
  constructor(detectors: readonly Detector[]) {
    this.#filter = new Prefilter(
      detectors.flatMap(({ id, keywords, fold, before, lead = [], forms }) => {
        const next = anyOf(...forms.map((form) => firstOfForm(lead, form)))
        const finds = {
          next,
          lead: sequence(lead),
          before,
          forms: forms.map((form) => compile(id, form)),
        }
        return keywords.map((text) => ({ text, fold: fold === true, next, finds }))
      }),
    )
  }

  /** See {@link Scan}. */
  scan(scanned: Scanned): Scan {
    const { bytes, from, ending } = scanned
    let at = this.#filter.next(bytes, from)
    // most short texts: nothing in them, and nothing behind them
    if (at === -1 && ending === 'end') return { regions: [], opens: [], hold: bytes.length }
    const pass = new Pass(scanned)
    while (at !== -1) {
      for (const candidate of this.#filter.at(bytes, at))
        if (candidate.fourth[bytes[at + candidate.fourthAt] ?? 0] === 1)
          if (!pass.consider(candidate, at - candidate.offset)) return pass.result(undefined)
      at = this.#filter.next(bytes, pass.after(at))
    }
    return pass.result(this.#filter.unfinished(bytes, Math.max(from, pass.until)))
  }
}

/** One scan. */
class Pass {
  readonly #regions: Region[] = []
  #opens: Open[] = []
  readonly #scanned: Scanned
  readonly #text: Text
  /** Up to here everything is a secret or decided on. */
  until: number
  /** A match whose secret begins only at `from`: what stands between keyword and secret is still looked at. */
  #head = { start: 0, from: 0 }
  #hold: number | undefined
  /** Up to here a secret that goes on was taken: the end, or a byte before it that is undecided. */
  #openTo = 0

  constructor(scanned: Scanned) {
    this.#scanned = scanned
    this.#text = { bytes: scanned.bytes, final: false }
    this.until = scanned.from
  }

  /** Where to look next after a position: not within a secret. */
  after(at: number): number {
    return at >= this.#head.from && this.until > at + 1 ? this.until : at + 2
  }

  /** Tries a candidate. @returns false where nothing more can be said without more bytes */
  consider({ matches, finds }: Candidate<Finder>, start: number): boolean {
    if (start < this.#scanned.from) return true
    const inHead = start < this.#head.from
    if (!inHead && start < this.until) return true
    const verdict = this.#try(matches, finds, start)
    if (verdict.is === 'no') return true
    if (verdict.is === 'match') {
      this.#keep(verdict, start, inHead)
      return true
    }
    this.#hold ??= inHead ? this.#head.start : start
    if (this.#scanned.ending === 'more') return false
    this.#guess(verdict, matches, finds, start, inHead)
    return true
  }

  #try(matches: Candidate<Finder>['matches'], finds: Finder, start: number): Verdict {
    if (finds.before !== undefined && !this.#mayFollow(finds.before, start)) return NO
    const end = matches(this.#text, start)
    if (end < 0) return end === MORE ? NOT_YET : NO
    const { bytes } = this.#text
    if (end < bytes.length && finds.next[bytes[end] ?? 0] === 0) return NO
    return this.#tryForms(finds, end, this.#text)
  }

  #tryForms(finds: Finder, keywordEnd: number, text: Text): Verdict {
    const end = finds.lead(text, keywordEnd)
    if (end < 0) return end === MORE ? NOT_YET : NO
    for (const form of finds.forms) {
      const verdict = tryForm(form, text, end)
      if (verdict.is !== 'no') return verdict
    }
    return NO
  }

  #keep(verdict: Match, start: number, inHead: boolean): void {
    if (!inHead) this.#head = { start, from: verdict.from }
    this.#region(verdict.from, verdict.to, verdict.detector)
    if (verdict.open === undefined) return
    this.#opens.push(verdict.open)
    this.#openTo = verdict.to
  }

  #region(from: number, to: number, detector: string): void {
    this.#regions.push({ from, to, detector })
    this.until = Math.max(this.until, to)
  }

  /** Decides on what is undecided, where nothing is waited for. */
  #guess(
    verdict: Verdict,
    matches: Candidate<Finder>['matches'],
    finds: Finder,
    start: number,
    inHead: boolean,
  ): void {
    const ended = { bytes: this.#scanned.bytes, final: true }
    const end = matches(ended, start)
    const last = end < 0 ? NO : this.#tryForms(finds, end, ended)
    if (last.is === 'match') this.#keep(last, start, inHead)
    else if (verdict.is === 'begun' && this.#scanned.ending === 'now')
      this.#region(verdict.from, ended.bytes.length, verdict.detector)
  }

  /** Whether a keyword may stand at `start`, by what is before it. */
  #mayFollow(allowed: ByteClass, start: number): boolean {
    const byte = this.#byte(start - 1)
    if (byte === undefined || allowed[byte] === 1) return true
    if (ESCAPED_BLANK[byte] === 1 && this.#byte(start - 2) === BACKSLASH) return true
    return COLOUR_END[byte] === 1 && this.#endsColour(start - 2)
  }

  #endsColour(last: number): boolean {
    for (let at = last; at > last - CONTEXT_BYTES + 2; at--) {
      const byte = this.#byte(at)
      if (byte === BRACKET) return this.#byte(at - 1) === ESCAPE
      if (byte === undefined || COLOUR_BODY[byte] === 0) return false
    }
    return false
  }

  #byte(at: number): number | undefined {
    const { bytes, context } = this.#scanned
    return at < 0 ? context[context.length + at] : bytes[at]
  }

  /** @param unfinished - where bytes begin that may become a keyword; undefined where the scan stopped before */
  result(unfinished: number | undefined): Scan {
    const { bytes } = this.#scanned
    // What is open behind undecided bytes is found again with them.
    if (this.#hold !== undefined) this.#opens = []
    const decided = this.#opens.length > 0 ? this.#openTo : bytes.length
    const hold = Math.min(this.#hold ?? unfinished ?? bytes.length, decided)
    return { regions: this.#regions, opens: this.#opens, hold }
  }
}
