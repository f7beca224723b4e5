/** A ledger entry in three short texts, for people: who, what, with which result. Entries are read as they come: those of other versions show what they have. */
import { isRecord } from './config.ts'

/** See the head of the file. The texts were chosen by others: whoever prints them escapes them. */
export type EntryColumns = readonly [who: string, what: string, result: string]

/** The columns of an entry of that kind. */
export function entryColumns(kind: string, entry: Readonly<Record<string, unknown>>): EntryColumns {
  switch (kind) {
    case 'intent':
      return intentColumns(entry)
    case 'outcome':
      return ['', '', outcomeText(entry)]
    case 'refusal':
      return [
        textOf(partOf(entry, 'subject')['name']),
        textOf(entry['detail']),
        textOf(entry['reason']),
      ]
    case 'approval': {
      const change = `${textOf(entry['from'])} -> ${textOf(entry['to'])}`
      return [textOf(entry['actor']), '', joined([change, textOf(entry['reason'])])]
    }
    default:
      return [textOf(entry['actor']), textOf(entry['event']), '']
  }
}

/** Status, why it is not the API server's own answer, and what of that was hidden: `200 (masked 2: Secret data.password)`. */
function outcomeText(entry: Readonly<Record<string, unknown>>): string {
  const masked = partOf(entry, 'masked')
  const count = textOf(masked['count'])
  const [first, ...more] = textsOf(masked['fields'])
  const fields = [first ?? '', more.length === 0 ? '' : '…']
  const hidden = count === '' ? '' : `(masked ${count}: ${joined(fields, ', ')})`
  return joined([textOf(entry['status']), textOf(entry['reason']), hidden])
}

function intentColumns(entry: Readonly<Record<string, unknown>>): EntryColumns {
  const request = partOf(entry, 'request')
  const decision = partOf(entry, 'decision')
  const resource = joined([textOf(request['resource']), textOf(request['subresource'])], '/')
  const object = joined([textOf(request['namespace']), textOf(request['name'])], '/')
  const reviewer = textOf(partOf(entry, 'approval')['reviewer'])
  return [
    textOf(entry['agent']),
    joined([textOf(request['verb']), resource === '' ? textOf(request['path']) : resource, object]),
    joined([
      textOf(decision['effect']),
      textOf(decision['reason']),
      reviewer === '' ? '' : `approved by ${reviewer}`,
    ]),
  ]
}

/** A part of an entry that is a mapping; empty where there is none. */
export function partOf(
  entry: Readonly<Record<string, unknown>>,
  key: string,
): Readonly<Record<string, unknown>> {
  const value = entry[key]
  return isRecord(value) ? value : {}
}

/** A text or number as text; empty for everything else. */
export function textOf(value: unknown): string {
  if (typeof value === 'string') return value
  return typeof value === 'number' ? String(value) : ''
}

/** The texts of a list; empty for everything else. */
export function textsOf(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.map(textOf).filter((text) => text !== '') : []
}

/** Texts that are not empty, side by side. */
export function joined(parts: readonly string[], separator = ' '): string {
  return parts.filter((piece) => piece !== '').join(separator)
}
