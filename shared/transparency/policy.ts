/** C2SP tlog-policy: which logs and witnesses are trusted, and how many witnesses must have signed. */
import { parseDecimal } from './checkpoint.ts'
import { parseVkey, rawPublicKey, TYPE_COSIGNATURE, TYPE_ED25519 } from './note.ts'
import type { Checked, NoteKey, NoteSigned } from './note.ts'

/** Longest policy that is read, characters. */
export const MAX_POLICY_LENGTH = 64 * 1024

/** A policy. A log's key has the name of its origin. */
export interface TrustPolicy {
  readonly logs: readonly NoteKey[]
  readonly witnesses: readonly NoteKey[]
  /** Whether those that signed are the quorum; what logs sign does not count. */
  isQuorum(signedBy: readonly NoteSigned[]): boolean
}

/** Tells whether a witness, or enough of a group, is among these keys. */
type Rule = (signed: ReadonlySet<NoteKey>) => boolean

interface Parsing {
  readonly logs: NoteKey[]
  readonly witnesses: NoteKey[]
  readonly rules: Map<string, Rule>
  readonly grouped: Set<string>
  quorum?: Rule
}

/** Reads a policy; the problem names the line. */
export function parsePolicy(text: string): Checked<TrustPolicy> {
  if (text.length > MAX_POLICY_LENGTH) return { problem: 'the policy is too long' }
  const parsing: Parsing = { logs: [], witnesses: [], rules: new Map(), grouped: new Set() }
  for (const [at, line] of text.split('\n').entries()) {
    const problem = readLine(line, parsing)
    if (problem !== undefined)
      return { problem: `line ${String(at + 1)} of the policy: ${problem}` }
  }
  const { logs, witnesses, quorum } = parsing
  if (quorum === undefined) return { problem: 'the policy has no quorum line' }
  const isQuorum = (signedBy: readonly NoteSigned[]): boolean =>
    quorum(new Set(signedBy.map(({ key }) => key)))
  return { value: { logs, witnesses, isQuorum } }
}

function readLine(line: string, parsing: Parsing): string | undefined {
  // eslint-disable-next-line no-control-regex -- of the control characters only the tab is allowed
  if (/[\u0000-\u0008\u000a-\u001f\u007f]/.test(line)) return 'a control character'
  const [word, ...items] = line.split(/[ \t]+/).filter((item) => item !== '')
  if (word === undefined || word.startsWith('#')) return undefined
  switch (word) {
    case 'log':
      return readLog(items, parsing)
    case 'witness':
      return readWitness(items, parsing)
    case 'group':
      return readGroup(items, parsing)
    case 'quorum':
      return readQuorum(items, parsing)
    default:
      return 'neither log, witness, group nor quorum'
  }
}

function readLog([vkey = '', ...rest]: string[], { logs }: Parsing): string | undefined {
  if (rest.length > 1) return 'log takes a key and an address'
  return addKey(vkey, TYPE_ED25519, logs)
}

function readWitness(items: string[], { witnesses, rules }: Parsing): string | undefined {
  const [name = '', vkey = '', ...rest] = items
  if (rest.length > 1 || !isNew(name, rules)) return 'witness takes a new name, a key, an address'
  const problem = addKey(vkey, TYPE_COSIGNATURE, witnesses)
  const key = witnesses.at(-1)
  if (problem === undefined && key !== undefined) rules.set(name, (signed) => signed.has(key))
  return problem
}

function addKey(vkey: string, type: NoteKey['type'], keys: NoteKey[]): string | undefined {
  const parsed = parseVkey(vkey)
  if (parsed.problem !== undefined) return parsed.problem
  if (parsed.value.type !== type) return 'a key of the other kind'
  const raw = Buffer.from(rawPublicKey(parsed.value.key))
  if (keys.some(({ key }) => raw.equals(rawPublicKey(key)))) return 'a key that was there before'
  keys.push(parsed.value)
  return undefined
}

function readGroup(items: string[], { rules, grouped }: Parsing): string | undefined {
  const [name = '', count = '', ...members] = items
  if (!isNew(name, rules)) return 'group takes a new name, a number, and members'
  const needed = neededOf(count, members.length)
  if (needed === undefined) return 'not all, any, or a number up to that of members'
  const chosen: Rule[] = []
  for (const member of members) {
    const rule = rules.get(member)
    if (rule === undefined) return 'a member that no line before defines'
    if (grouped.has(member)) return 'a member that has a group already'
    grouped.add(member)
    chosen.push(rule)
  }
  rules.set(name, (signed) => chosen.filter((rule) => rule(signed)).length >= needed)
  return undefined
}

/** How many of the members must have signed; undefined where the text says nothing that can be. */
function neededOf(count: string, members: number): number | undefined {
  const needed = count === 'any' ? 1 : count === 'all' ? members : parseDecimal(count)
  return needed !== undefined && needed >= 1 && needed <= members ? needed : undefined
}

function readQuorum([name = '', ...rest]: string[], parsing: Parsing): string | undefined {
  const rule = name === 'none' ? () => true : parsing.rules.get(name)
  if (rest.length > 0 || rule === undefined) return 'quorum takes a name that a line before defines'
  if (parsing.quorum !== undefined) return 'a second quorum line'
  parsing.quorum = rule
  return undefined
}

function isNew(name: string, rules: ReadonlyMap<string, Rule>): boolean {
  return name !== '' && name !== 'none' && !rules.has(name)
}
