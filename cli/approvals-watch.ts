/** `nestgate approvals watch`: what waits now, and then each change as it happens. */
import type { Command } from 'commander'
import { changeEventSchema, snapshotEventSchema } from '../shared/wire.ts'
import type { Approval } from '../shared/wire.ts'
import { whatOf } from './approval-text.ts'
import { CallError } from './client.ts'
import type { ServerEvent } from './client.ts'
import type { Runner } from './program.ts'
import { plain, toJson } from './output.ts'

/** Adds the command. It ends with the connection: whoever wants to go on starts it again. */
export function addWatch(approvals: Command, runner: Runner): void {
  approvals
    .command('watch')
    .description('print what waits, then every change, until interrupted')
    .action(() =>
      runner.follow(async (client, format) => {
        for await (const event of client.events('v1/approvals/watch')) {
          for (const { from, approval } of changesOf(event)) {
            runner.print(
              // one line each, so that a program can read them one by one
              format === 'json'
                ? toJson({ from, approval }).replaceAll(/\n\s*/g, '')
                : plain(lineOf(from, approval)),
            )
          }
        }
        throw new CallError('the broker ended the watch')
      }),
    )
}

interface Change {
  /** Missing in what waited already. */
  readonly from?: string
  readonly approval: Approval
}

function changesOf({ name, data }: ServerEvent): readonly Change[] {
  if (name === 'snapshot') {
    const snapshot = snapshotEventSchema.safeParse(data)
    if (snapshot.success) return snapshot.data.items.map((approval) => ({ approval })).toReversed()
  } else if (name === 'change') {
    const change = changeEventSchema.safeParse(data)
    if (change.success) return [change.data]
  } else return []
  throw new CallError('the broker’s answer is not what was expected')
}

function lineOf(from: string | undefined, approval: Approval): string {
  const { id, state, agent, subject, cluster, reviewer } = approval
  const change = from === undefined || from === 'RECEIVED' ? state : `${from} > ${state}`
  const by = reviewer === undefined || from === 'RECEIVED' ? '' : `  (${reviewer})`
  return `${id}  ${change}  ${cluster}  ${agent}  ${subject}  ${whatOf(approval)}${by}`
}
