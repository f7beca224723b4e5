/** Terms of approval and obligations of the rules that decided: of several, the strictest of each. */
import { RECORD_MODES } from './decision.ts'
import type { ApprovalTerms, Obligations, Quorum, Recording } from './decision.ts'
import { DEFAULT_CAPTURE_BYTES, DEFAULT_RECORDING_BYTES, seconds } from './language.ts'
import type { ApprovalText } from './language.ts'
import { togetherMasked } from './mask-profiles.ts'
import type { Rule } from './policy-set.ts'

/** Terms of a rule that does not give its own. */
export const DEFAULT_TERMS: ApprovalTerms = {
  quorums: [],
  pendingSeconds: 15 * 60,
  approvedSeconds: 15 * 60,
  holdSeconds: 5 * 60,
  reuseSeconds: 0,
  onLeave: 'cancel',
  mode: 'hold',
}

/**
 * Terms of the rules together: all their quorums, of one group the largest; the shortest times, so that an approval
 * is used once where any rule wants it so; cancelled when the client leaves, and told at once to come back, where any
 * rule wants it so. What a rule does not give it has from {@link DEFAULT_TERMS}.
 */
export function approvalTerms(rules: readonly Rule[], defaults = DEFAULT_TERMS): ApprovalTerms {
  const all = rules.map(({ approval = {} }) => termsOf(approval, defaults))
  const least = (
    key: 'pendingSeconds' | 'approvedSeconds' | 'holdSeconds' | 'reuseSeconds',
  ): number => Math.min(...all.map((terms) => terms[key]))
  return {
    quorums: mergeQuorums(all.flatMap(({ quorums }) => quorums)),
    pendingSeconds: least('pendingSeconds'),
    approvedSeconds: least('approvedSeconds'),
    holdSeconds: least('holdSeconds'),
    reuseSeconds: least('reuseSeconds'),
    onLeave: all.some(({ onLeave }) => onLeave === 'cancel') ? 'cancel' : 'keep',
    mode: all.some(({ mode }) => mode === 'return') ? 'return' : 'hold',
  }
}

function termsOf(text: ApprovalText, defaults: ApprovalTerms): ApprovalTerms {
  const time = (given: string | undefined, otherwise: number): number =>
    given === undefined ? otherwise : seconds(given)
  return {
    quorums: text.quorums ?? defaults.quorums,
    pendingSeconds: time(text.expires, defaults.pendingSeconds),
    approvedSeconds: time(text.approvedFor, defaults.approvedSeconds),
    holdSeconds: time(text.hold, defaults.holdSeconds),
    reuseSeconds: text.reuse === 'once' ? 0 : time(text.reuse, defaults.reuseSeconds),
    onLeave: text.onLeave ?? defaults.onLeave,
    mode: text.mode ?? defaults.mode,
  }
}

function mergeQuorums(quorums: readonly Quorum[]): readonly Quorum[] {
  const counts = new Map<string, number>()
  for (const { group, count } of quorums) counts.set(group, Math.max(count, counts.get(group) ?? 0))
  return [...counts].map(([group, count]) => ({ group, count }))
}

/** Obligations of the rules together: all groups they grant; recorded as the strictest of them wants it; hidden is what any of them hides. */
export function obligationsOf(rules: readonly Rule[]): Obligations {
  const groups = new Set(rules.flatMap(({ grant }) => grant?.groups ?? []))
  const record = recordingOf(rules)
  return {
    mask: togetherMasked(rules),
    ...(record === undefined ? {} : { record }),
    grantGroups: [...groups].sort(),
  }
}

/** What a recording is like of which a rule says nothing more. */
const DEFAULT_RECORDING: Omit<Recording, 'mode' | 'orDefault'> = {
  stdin: false,
  mask: true,
  files: false,
  tunnelBytes: 0,
  maxBytes: DEFAULT_RECORDING_BYTES,
}

/** The default of sessions. */
export const RECORD_REQUIRED: Recording = {
  mode: 'required',
  orDefault: false,
  ...DEFAULT_RECORDING,
}

/** The strictest mode, and of the rest what keeps the most evidence and hides the most secrets; undefined where no rule speaks of it. */
function recordingOf(rules: readonly Rule[]): Recording | undefined {
  const all = rules.flatMap(({ record }) => (record === undefined ? [] : [termsOfRecord(record)]))
  if (all.length === 0) return undefined
  const retainDays = Math.max(...all.map((terms) => terms.retainDays ?? 0))
  return {
    mode: RECORD_MODES.find((mode) => all.some((terms) => terms.mode === mode)) ?? 'required',
    orDefault: all.length < rules.length,
    stdin: all.some(({ stdin }) => stdin),
    mask: all.some(({ mask }) => mask),
    files: all.some(({ files }) => files),
    tunnelBytes: Math.max(...all.map(({ tunnelBytes }) => tunnelBytes)),
    maxBytes: Math.max(...all.map(({ maxBytes }) => maxBytes)),
    ...(retainDays === 0 ? {} : { retainDays }),
  }
}

type RecordTerms = Omit<Recording, 'orDefault'>

function termsOfRecord(record: NonNullable<Rule['record']>): RecordTerms {
  if (typeof record !== 'object') return { ...DEFAULT_RECORDING, mode: modeOf(record) }
  const given = Object.fromEntries(
    Object.entries(record).filter(([, value]) => value !== undefined),
  )
  return { ...DEFAULT_RECORDING, ...given, mode: record.mode }
}

function modeOf(record: boolean | Recording['mode']): Recording['mode'] {
  if (typeof record === 'string') return record
  return record ? 'required' : 'off'
}

/**
 * What of the body is kept: what any of the rules wants, and of several the most. Evidence that a weaker rule asks for is
 * owed as well where a stronger one decides, so that these are all rules that matched.
 */
export function captureOf(rules: readonly Rule[]): Pick<Obligations, 'capture'> {
  const sizes = rules.flatMap(({ capture }) =>
    capture === undefined ? [] : [capture.maxBytes ?? DEFAULT_CAPTURE_BYTES],
  )
  return sizes.length === 0 ? {} : { capture: { maxBytes: Math.max(...sizes) } }
}

/** Of requests that no rule let through. */
export const NO_OBLIGATIONS: Obligations = { grantGroups: [] }
