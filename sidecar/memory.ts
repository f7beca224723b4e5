/**
 * Keeps this process small, for it is paid once per pod; docs/decisions/0004 has what each habit saves. The limits of
 * the heap are options of Node, in shared/sidecar-runtime.ts; here is what the process can do for itself.
 */
import { readFileSync } from 'node:fs'
import { messageOf } from '../shared/errors.ts'
import type { Log } from '../shared/json-log.ts'
import { loadNative } from './native.ts'
import type { Native } from './native.ts'

/** How often memory is given back, in milliseconds. */
const GIVE_BACK_EVERY_MS = 5000
/** From this size on a block is a mapping of its own, which goes back to the kernel when it is freed, in bytes. */
const OWN_MAPPING_BYTES = 65_536
/** How much may lie free at the end of the heap, in bytes. */
const FREE_AT_END_BYTES = 65_536

/** Part of a file in this process's memory. */
export interface FileMapping {
  readonly start: bigint
  readonly size: bigint
}

/** Keeps this process small from now on. */
export function keepSmall(log: Pick<Log, 'warn'>): void {
  let native: Native
  try {
    native = loadNative()
  } catch (error) {
    log.warn({ error: messageOf(error) }, 'memory is not given back')
    return
  }
  // Threads would have arenas of their own, whose free memory serves nobody else.
  native.tuneMalloc('arenaMax', 1)
  native.tuneMalloc('mmapThreshold', OWN_MAPPING_BYTES)
  native.tuneMalloc('trimThreshold', FREE_AT_END_BYTES)
  native.tuneMalloc('topPad', 0)
  let mappings: readonly FileMapping[] | undefined
  setInterval(() => {
    mappings ??= readableMappings(readFileSync('/proc/self/smaps', 'latin1'))
    // Most of Node's program is needed at the start alone; what is needed again comes back from the page cache.
    for (const { start, size } of mappings) native.dropPages(start, size)
    native.trimMalloc()
  }, GIVE_BACK_EVERY_MS).unref()
}

/**
 * The mappings of files that cannot be written and of which no page was: dropping pages of others would lose what was
 * written there, such as the relocated addresses of a library.
 *
 * @param smaps - text of /proc/PID/smaps (proc(5))
 */
export function readableMappings(smaps: string): readonly FileMapping[] {
  const found: FileMapping[] = []
  let mapping: (FileMapping & { readonly isReadOnlyFile: boolean }) | undefined
  for (const line of smaps.split('\n')) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ *(.*)$/.exec(line)
    if (head !== null) {
      const [, from = '', to = '', rights = '', path = ''] = head
      const start = BigInt(`0x${from}`)
      const isReadOnlyFile = path.startsWith('/') && !rights.includes('w')
      mapping = { start, size: BigInt(`0x${to}`) - start, isReadOnlyFile }
    } else if (/^Anonymous: +0 kB$/.test(line) && mapping?.isReadOnlyFile === true)
      found.push({ start: mapping.start, size: mapping.size })
  }
  return found
}
