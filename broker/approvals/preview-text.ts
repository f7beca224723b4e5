/** Previews as text: bounded, without control characters, the same for the same objects. */
import { createTwoFilesPatch } from 'diff'
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import { arrayAt, objectAt, textAt, yamlText } from './json-tree.ts'
import type { Json } from './json-tree.ts'

/** Longest preview, in bytes of UTF-8; below the ledger's largest entry. */
export const MAX_PREVIEW_BYTES = 64 * 1024
/** Longest line, in UTF-16 code units: what is longer is no reading for people. */
const MAX_LINE = 2_000
/** Lines that are the same around a change. */
const CONTEXT_LINES = 3
/** Most lines that a diff may add and remove before it is given up, and longest time for it, in milliseconds. */
const MAX_EDITS = 4_000
const MAX_DIFF_MS = 500

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

/** An object as YAML. */
export function objectText(value: Json): string {
  return bounded(visible(yamlText(value)))
}

/**
 * The difference of two objects as a unified diff of their YAML; undefined for no object. Empty where nothing
 * differs; undefined where the difference is too large to be worked out.
 */
export function diffText(before: Json | undefined, after: Json | undefined): string | undefined {
  const [old, young] = [before, after].map((value) =>
    value === undefined ? '' : visible(yamlText(value)),
  )
  if (old === young) return ''
  const patch = createTwoFilesPatch(
    'now',
    'after the request',
    old ?? '',
    young ?? '',
    undefined,
    undefined,
    { context: CONTEXT_LINES, maxEditLength: MAX_EDITS, timeout: MAX_DIFF_MS },
  )
  // the first line is a rule that says nothing
  return patch === undefined ? undefined : bounded(patch.replace(/^=+\n/, ''))
}

/** What a session would run or reach. @param pod - as it was when the request was held, where it could be read */
export function sessionText(
  { info, parameters }: RequestAttributes,
  pod: Json | undefined,
): string {
  const { command, container, tty, stdin, ports, proxyPath } = parameters
  const lines: string[] = []
  if (command !== undefined) lines.push('argv:', ...command.map((word) => `  ${quoted(word)}`))
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
  if (proxyPath !== undefined) lines.push(`path: ${quoted(proxyPath)}`)
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
