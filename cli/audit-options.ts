/** Options of the commands that ask for ledger entries. */
import type { Command } from 'commander'
import { AUDIT_FILTERS } from '../shared/audit-filters.ts'
import { UsageError } from './settings.ts'

/** Values of options, as commander reads them. */
export type OptionValues = Readonly<Record<string, unknown>>

/** Adds an option for each condition that entries can be asked by. */
export function addFilters(command: Command): void {
  for (const { option, text } of AUDIT_FILTERS) command.option(`--${option} <value>`, text)
}

/** The conditions among the options, as the broker takes them. */
export function filterQuery(options: OptionValues): URLSearchParams {
  const query = new URLSearchParams()
  for (const { name, option } of AUDIT_FILTERS) {
    const value = options[option === 'pod-uid' ? 'podUid' : option]
    if (typeof value === 'string') query.set(name, value)
  }
  return query
}

/** A whole number that an option gives. @throws {@link UsageError} naming the option */
export function wholeNumber(options: OptionValues, name: string): string | undefined {
  const value = options[name]
  if (value === undefined) return undefined
  if (typeof value !== 'string' || !/^\d{1,15}$/.test(value))
    throw new UsageError(`--${name} must be a whole number`)
  return value
}
