/** What one look at a connection comes to, for each way in which it can end, and whether another look may tell more. */
import { statSync } from 'node:fs'
import type { AgentTag } from '../../shared/agent-tag.ts'
import type { Holding } from './holders.ts'
import { judge } from './verdict.ts'

/** Who holds a connection, as a text to compare, and the tag of that. */
export interface Conclusion {
  readonly holders: string
  readonly tag: AgentTag
  /** When another look may tell more: what was seen for certain must not be looked away. */
  readonly lookAgain: 'always' | 'ifChanged' | 'never'
}

/** Nobody holds it, for all that can be seen. */
export function nobody(why: string): Conclusion {
  const tag = judge({ kind: 'none', why })
  return { holders: 'nobody', tag, lookAgain: 'ifChanged' }
}

/** Somebody holds it and was not found: it may have moved to another descriptor while its table was read. */
export function notFound(unread: number): Conclusion {
  const why =
    unread === 0
      ? 'no process holds the client’s end'
      : `no process that may be searched holds the client’s end; ${unread} may not be`
  return { ...nobody(why), lookAgain: 'always' }
}

/** What was read is not of one moment. */
export function changedMeanwhile(what: string): Conclusion {
  return { ...nobody(`${what} changed while it was looked at`), lookAgain: 'always' }
}

/** A child that has not executed anything yet is its parent's program; any other has had its chance to write. */
export function heldBySeveral(procRoot: string, holdings: readonly Holding[]): Conclusion {
  const pids = holdings.map(({ pid }) => pid).sort((a, b) => a - b)
  const programs = new Set(holdings.map((holding) => programOf(procRoot, holding)))
  return {
    holders: `shared ${pids.join(' ')}`,
    tag: judge({ kind: 'several', pids }),
    lookAgain: programs.size === 1 ? 'always' : 'never',
  }
}

/** Which file a process executes, as a text to compare; one that cannot be read is like no other. */
function programOf(procRoot: string, { pid, tid }: Holding): string {
  try {
    const { dev, ino } = statSync(`${procRoot}/${pid}/task/${tid}/exe`)
    return `${dev}:${ino}`
  } catch {
    return `process ${pid}`
  }
}
