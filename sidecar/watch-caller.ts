/** Watches who holds a connection that goes on for long without requests: one that was switched to another protocol. */
import type { Socket } from 'node:net'
import type { AgentTag } from '../shared/agent-tag.ts'
import { isRefusal } from '../shared/reasons.ts'
import type { Refusal } from '../shared/reasons.ts'
import { identifyCaller } from './deliver.ts'
import type { DeliverDeps } from './deliver.ts'

/** How often it is looked at, in milliseconds. */
export const RECHECK_MS = 5000
/** How many looks in a row may fail because there is too much to search. */
export const MAX_BUSY = 3

/**
 * Calls `changed`, once, when somebody else holds the connection, or nobody can tell any more.
 *
 * @param caller - who held it at the beginning
 * @param everyMs - time between two looks, in milliseconds
 * @returns ends the watching
 */
export function watchCaller(
  deps: Pick<DeliverDeps, 'callers' | 'log' | 'metrics' | 'now'>,
  socket: Socket,
  caller: AgentTag,
  changed: () => void,
  everyMs = RECHECK_MS,
): () => void {
  let timer: NodeJS.Timeout | undefined
  let ended = false
  let busy = 0
  const check = async (): Promise<void> => {
    const now = await identifyCaller(deps, socket)
    if (ended) return
    busy = isBusy(now) ? busy + 1 : 0
    if (isBusy(now) ? busy < MAX_BUSY : isSame(now, caller)) schedule()
    else {
      deps.log.warn({ instance: caller.instanceId }, 'a session ends: its connection changed hands')
      changed()
    }
  }
  const schedule = (): void => {
    timer = setTimeout(() => void check(), everyMs)
    timer.unref()
  }
  schedule()
  return () => {
    ended = true
    clearTimeout(timer)
  }
}

function isBusy(answer: AgentTag | Refusal): boolean {
  return isRefusal(answer) && answer.refused === 'attribution_busy'
}

function isSame(answer: AgentTag | Refusal, caller: AgentTag): boolean {
  return (
    !isRefusal(answer) &&
    answer.verdict === caller.verdict &&
    answer.instanceId === caller.instanceId &&
    answer.socket?.uid === caller.socket?.uid
  )
}
