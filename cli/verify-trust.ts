/** Whom an auditor trusts: keys of logs and witnesses, never those that what is verified brings along. */
import {
  parseDecimal,
  verifyCheckpoint,
  type SignedCheckpoint,
} from '../shared/transparency/checkpoint.ts'
import { parseVkey, TYPE_COSIGNATURE, TYPE_ED25519 } from '../shared/transparency/note.ts'
import type { Checked, NoteKey, NoteSigned } from '../shared/transparency/note.ts'
import { parsePolicy } from '../shared/transparency/policy.ts'
import { readText, UsageError } from './settings.ts'

/** Keys of logs and witnesses, and whether those that signed are enough witnesses. */
export interface Trust {
  readonly keys: readonly NoteKey[]
  isQuorum(signedBy: readonly NoteSigned[]): boolean
}

/** Options as commander reads them. */
export interface TrustOptions {
  readonly vkey?: readonly string[]
  readonly policy?: string
  /** How many of the witnesses with a `--vkey` must have signed. */
  readonly quorum?: string
}

/** @throws UsageError when no key of a log is there, or one cannot be read */
export function readTrust({ vkey = [], policy: file, quorum }: TrustOptions): Trust {
  const policy = file === undefined ? undefined : usable(parsePolicy(readText(file)))
  const given = vkey.map((text) => usable(parseVkey(text)))
  const keys = [...given, ...(policy?.logs ?? []), ...(policy?.witnesses ?? [])]
  if (!keys.some(({ type }) => type === TYPE_ED25519)) {
    throw new UsageError('no key of a ledger: give --vkey, or --policy with a log line')
  }
  const needed = quorum === undefined ? 0 : parseDecimal(quorum)
  if (needed === undefined) throw new UsageError('--quorum must be a number')
  return {
    keys,
    isQuorum: (signedBy) =>
      signedBy.filter(({ key }) => key.type === TYPE_COSIGNATURE).length >= needed &&
      policy?.isQuorum(signedBy) !== false,
  }
}

function usable<T>(checked: Checked<T>): T {
  if (checked.problem !== undefined) throw new UsageError(checked.problem)
  return checked.value
}

/**
 * Verifies a checkpoint with these keys: signed by a log's key that has the name of the origin, so that one trusted
 * log cannot speak for another; and, where `quorum` is asked for, by enough witnesses.
 */
export function trustedCheckpoint(
  note: string,
  trust: Trust,
  quorum: 'quorum' | 'log only' = 'quorum',
): Checked<SignedCheckpoint> {
  const verified = verifyCheckpoint(note, trust.keys)
  if (verified.problem !== undefined) return verified
  const { origin, signedBy } = verified.value
  const isOwn = signedBy.some(({ key }) => key.type === TYPE_ED25519 && key.name === origin)
  if (!isOwn) return { problem: `the checkpoint is of ${origin}, whose key is not trusted` }
  if (quorum === 'quorum' && !trust.isQuorum(signedBy)) {
    return { problem: 'the checkpoint is not signed by enough witnesses' }
  }
  return verified
}
