/** Previews as text: bounded, without control characters, the same for the same objects. */
import { createTwoFilesPatch } from 'diff'
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import { maskArguments, maskText } from '../masking/detectors/masker.ts'
import {
  arrayAt,
  canonicalText,
  isArray,
  isObject,
  objectAt,
  textAt,
  yamlText,
} from './json-tree.ts'
import type { Json } from './json-tree.ts'

/** Longest preview, in bytes of UTF-8; below the ledger's largest entry. */
export const MAX_PREVIEW_BYTES = 64 * 1024
/** Longest line, in UTF-16 code units: what is longer is no reading for people. */
const MAX_LINE = 2_000
/** Lines that are the same around a change. */
const CONTEXT_LINES = 3
/** Most lines that a diff may add and remove before it is given up, and longest time for it, in milliseconds. */
const MAX_EDITS = 5_000
const MAX_DIFF_MS = 150
/** Values of one text that are rendered: the broker does nothing else meanwhile, and a caller chooses the object. */
const MAX_VALUES = 2_500
/** Changed places that are named where a whole diff would be too much. */
const MAX_CHANGED_PLACES = 200
/** So deep they are looked for. */
const MAX_PLACE_DEPTH = 24

const CUT_NOTE = '… cut here: the preview is longer than is shown'

/** C0 without tab and newline, DEL, C1, line separators, and what turns or hides text: none may reach a terminal. */
const UNSAFE =
  // eslint-disable-next-line no-control-regex -- control characters are what is looked for
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g

/** Control and invisible characters as escapes that can be read. */
export function visible(text: string): string {
  return text.replaceAll(UNSAFE, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** A text within {@link MAX_PREVIEW_BYTES}; what is missing is said at its end. */
export function bounded(text: string): string {
  const lines: string[] = []
  let bytes = Buffer.byteLength(CUT_NOTE) + 1
  for (const line of text.split('\n')) {
    const shown = line.length > MAX_LINE ? `${line.slice(0, MAX_LINE)}… (line cut)` : line
    bytes += Buffer.byteLength(shown) + 1
    if (bytes > MAX_PREVIEW_BYTES) return [...lines, CUT_NOTE].join('\n')
    lines.push(shown)
  }
  return lines.join('\n')
}

/** An object as YAML; of a very large one the beginning. */
export function objectText(value: Json): string {
  return bounded(visible(yamlText(clipped(value, { left: MAX_VALUES }))))
}

/** The difference of two objects, or of nothing and an object. */
export type Difference =
  /** A unified diff of their YAML; empty where nothing differs. */
  | { readonly form: 'unified'; readonly text: string }
  /** The differing places alone, where a diff would be too much to work out. */
  | { readonly form: 'places'; readonly text: string }

/** Works out a difference, in bounded time. */
export function difference(before: Json | undefined, after: Json): Difference {
  if (before === undefined) return { form: 'unified', text: addition(after) }
  const large = [before, after].some((value) => !fits(value, { left: MAX_VALUES }))
  const text = large ? undefined : unified(before, after)
  if (text !== undefined) return { form: 'unified', text }
  const places: string[] = []
  collectChanges(before, after, '', places)
  return { form: 'places', text: bounded(visible(places.join('\n'))) }
}

/** All of an object as a diff against nothing. */
function addition(after: Json): string {
  const lines = objectText(after).trimEnd().split('\n')
  const head = ['--- now', '+++ after the request', `@@ -0,0 +1,${lines.length} @@`]
  return bounded([...head, ...lines.map((line) => `+${line}`), ''].join('\n'))
}

function unified(before: Json, after: Json): string | undefined {
  const old = visible(yamlText(before))
  const young = visible(yamlText(after))
  if (old === young) return ''
  const limits = { context: CONTEXT_LINES, maxEditLength: MAX_EDITS, timeout: MAX_DIFF_MS }
  const names = ['now', 'after the request'] as const
  const patch = createTwoFilesPatch(...names, old, young, undefined, undefined, limits)
  // the first line is a rule that says nothing
  return patch === undefined ? undefined : bounded(patch.replace(/^=+\n/, ''))
}

/** Whether a value has no more parts than are left. */
function fits(value: Json, budget: { left: number }): boolean {
  budget.left -= 1
  if (budget.left < 0) return false
  if (isArray(value)) return value.every((item) => fits(item, budget))
  return !isObject(value) || Object.values(value).every((member) => fits(member, budget))
}

/** The value up to so many parts, in the order in which they are shown. */
function clipped(value: Json, budget: { left: number }): Json {
  budget.left -= 1
  if (isArray(value)) {
    const items: Json[] = []
    for (const item of value) {
      if (budget.left <= 0) return [...items, CUT_NOTE]
      items.push(clipped(item, budget))
    }
    return items
  }
  if (!isObject(value)) return value
  const members: [string, Json][] = []
  for (const key of Object.keys(value).sort()) {
    members.push([key, budget.left <= 0 ? CUT_NOTE : clipped(value[key] ?? null, budget)])
    if (budget.left <= 0) break
  }
  return Object.fromEntries(members)
}

/** Names the places where two values differ, as deep as both have the same form. */
function collectChanges(before: Json, after: Json, place: string, places: string[]): void {
  if (places.length >= MAX_CHANGED_PLACES || canonicalText(before) === canonicalText(after)) return
  const keys = place.split('/').length > MAX_PLACE_DEPTH ? undefined : keysOfBoth(before, after)
  if (keys === undefined) {
    places.push(`${place === '' ? '/' : place} changes`)
    return
  }
  for (const key of keys) {
    const [old, young] = [memberAt(before, key), memberAt(after, key)]
    const at = `${place}/${key}`
    if (places.length >= MAX_CHANGED_PLACES) return
    if (old === undefined) places.push(`${at} is added`)
    else if (young === undefined) places.push(`${at} is removed`)
    else collectChanges(old, young, at, places)
  }
  if (places.length === MAX_CHANGED_PLACES) places.push(CUT_NOTE)
}

function keysOfBoth(before: Json, after: Json): readonly string[] | undefined {
  const alike = (isObject(before) && isObject(after)) || (isArray(before) && isArray(after))
  return alike ? [...new Set([...Object.keys(before), ...Object.keys(after)])].sort() : undefined
}

function memberAt(value: Json, key: string): Json | undefined {
  if (isArray(value)) return value[Number(key)]
  return isObject(value) ? value[key] : undefined
}

/** What a session would run or reach; secrets in the words of its command are masked. @param pod - as it was when the request was held, where it could be read */
export function sessionText(
  { info, parameters }: RequestAttributes,
  pod: Json | undefined,
): string {
  const { command, container, tty, stdin, ports, proxyPath } = parameters
  const lines: string[] = []
  if (command !== undefined) {
    lines.push('argv:', ...maskArguments(command).map((word) => `  ${quoted(word)}`))
  }
  if (info.subresource === 'exec' || info.subresource === 'attach') {
    const { name, image } = containerOf(pod, container)
    lines.push(
      `container: ${name === '' ? 'the only one of the pod' : quoted(name)}`,
      `image: ${image === '' ? 'unknown' : quoted(image)}`,
      `tty: ${String(tty ?? false)}`,
      `stdin: ${String(stdin ?? false)}`,
    )
  }
  if (info.subresource === 'portforward') {
    lines.push(`ports: ${ports?.join(', ') ?? 'named only inside the session'}`)
  }
  if (proxyPath !== undefined) lines.push(`path: ${quoted(maskText(proxyPath).text)}`)
  return bounded(visible(lines.join('\n')))
}

/** In quotes, so that spaces and line ends in it show. */
function quoted(text: string): string {
  return JSON.stringify(text)
}

/** A container of a pod by name, or its only one. */
function containerOf(
  pod: Json | undefined,
  wanted: string | undefined,
): { readonly name: string; readonly image: string } {
  const spec = objectAt(pod, 'spec')
  const main = arrayAt(spec, 'containers')
  const all = [...main, ...arrayAt(spec, 'initContainers'), ...arrayAt(spec, 'ephemeralContainers')]
  const found =
    wanted === undefined || wanted === ''
      ? main.length === 1
        ? main[0]
        : undefined
      : all.find((each) => textAt(each, 'name') === wanted)
  return { name: wanted ?? textAt(found, 'name'), image: textAt(found, 'image') }
}
