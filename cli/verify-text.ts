/** What the verification of an export says to people. */
import type { ExportVerdict } from './verify-export.ts'

/** One line: what is shown, or the first thing that is wrong and where. */
export function exportText(verdict: ExportVerdict): string {
  const { problem, origin, from = 0, to = 0, entries, withBytes, checkpoints, signedBy } = verdict
  if (problem !== undefined) {
    const { seq, line, detail } = problem
    const where = seq === undefined ? '' : `entry ${seq}: `
    return `NOT VERIFIED: ${where}${detail} (${problem.code}${line === undefined ? '' : `, line ${line}`})`
  }
  const range = from === to ? 'no entries' : `entries ${from} to ${to - 1}`
  const rest = entries - withBytes
  const bare = rest === 0 ? '' : `, ${rest} of them by their hash only`
  const asked = verdict.filter === undefined ? '' : ', filtered'
  return `verified: ${range} of ${origin ?? ''}${asked}${bare}; ${checkpoints} checkpoints, the last signed by ${signedBy.join(', ')}`
}
