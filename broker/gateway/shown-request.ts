/**
 * A request's query, path and parameters as the ledger and people have them: words of commands, and whatever else
 * detectors find or a name promises, are masked, and all the rest stays byte for byte. What is forwarded, digested and decided
 * on is the true request; it comes back with every try, so that nobody has to keep it.
 */
import type { RequestAttributes, RequestParameters } from '../../shared/kubernetes/attributes.ts'
import { HIDDEN } from '../approvals/conceal.ts'
import { maskArguments, maskText } from '../masking/detectors/masker.ts'
import { secretName } from '../masking/objects/names.ts'
import type { ParsedRequest } from './parse.ts'

/** Parameter of exec and attach, once for each word. */
const COMMAND = 'command'

interface Pair {
  /** As it was sent. */
  readonly raw: string
  readonly name: string
  readonly value: string
}

/** A raw query as it may be written down. @param query - of which every pair can be decoded, as `parseTarget` leaves it */
export function shownQuery(query: string): string {
  if (query === '') return ''
  const pairs = query.split('&').map(pairOf)
  const words = maskArguments(pairs.filter(isCommand).map(({ value }) => value))
  let word = 0
  const shown = pairs.map((pair) => {
    const value = isCommand(pair) ? (words[word++] ?? HIDDEN) : shownValue(pair)
    return value === pair.value ? pair.raw : withValue(pair, value)
  })
  return shown.join('&')
}

/** A path with its query as it may be written down. */
export function shownTarget(path: string): string {
  const mark = path.indexOf('?')
  return mark === -1 ? path : `${path.slice(0, mark)}?${shownQuery(path.slice(mark + 1))}`
}

/** The path: of what stands behind a proxy, what the detectors find is masked. */
export function shownPath({ path, info }: Pick<ParsedRequest, 'path' | 'info'>): string {
  return isProxied(info) ? maskText(path).text : path
}

const TEXTS = [
  'proxyPath',
  'labelSelector',
  'fieldSelector',
  'fieldManager',
  'generateName',
  'container',
] as const

/** Parameters with the words of the command, and texts of the client's, masked. */
export function shownParameters(parameters: RequestParameters): RequestParameters {
  const { command } = parameters
  const texts = TEXTS.flatMap((name): [string, string][] => {
    const text = parameters[name]
    return text === undefined ? [] : [[name, maskText(text).text]]
  })
  return {
    ...parameters,
    ...Object.fromEntries(texts),
    ...(command === undefined ? {} : { command: maskArguments(command) }),
  }
}

/** Labels of the object in the body: of their values what the detectors find is masked. */
export function shownLabels(
  labels: NonNullable<RequestAttributes['labels']>,
): Readonly<Record<string, string>> {
  const entries = Object.entries(labels)
  return Object.fromEntries(entries.map(([name, value]) => [name, maskText(value).text]))
}

function isProxied({ verb, subresource }: ParsedRequest['info']): boolean {
  return subresource === 'proxy' || verb === 'proxy'
}

function pairOf(raw: string): Pair {
  const at = raw.indexOf('=')
  const name = decoded(at === -1 ? raw : raw.slice(0, at))
  return { raw, name, value: at === -1 ? '' : decoded(raw.slice(at + 1)) }
}

function decoded(text: string): string {
  return decodeURIComponent(text.replaceAll('+', '%20'))
}

function isCommand({ name }: Pair): boolean {
  return name === COMMAND
}

function shownValue({ name, value }: Pair): string {
  if (value === '') return value
  // a parameter of Kubernetes' own has no such name: it belongs to what stands behind a proxy
  if (secretName(name)) return HIDDEN
  return maskText(value).text
}

function withValue({ raw }: Pair, value: string): string {
  const at = raw.indexOf('=')
  return `${raw.slice(0, at + 1)}${encodeURIComponent(value)}`
}
