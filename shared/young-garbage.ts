/**
 * Buffers of a connection lie outside V8's heap, and are freed when the small objects that hold them are collected. V8 counts the memory and not the
 * objects: after 64 MiB it collects the whole heap, several times a second in a session that moves bytes, where a scavenge of the young objects
 * would have freed all of it (docs/benchmarks.md: 1.8 instead of 1.0 ms of CPU for each MiB).
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** How much may pass between two scavenges, in bytes: a fourth of what makes V8 collect everything. */
const SCAVENGE_BYTES = 16 * 1024 * 1024

let passed = 0
let scavenge: (() => void) | undefined

/** Says that so many bytes were read from a connection and passed on. */
export function countPassed(bytes: number): void {
  passed += bytes
  if (passed < SCAVENGE_BYTES) return
  passed = 0
  scavenge ??= createScavenge()
  scavenge()
}

/** The function that only a new context sees, because the flag comes late; it does nothing where V8 has none. */
function createScavenge(): () => void {
  setFlagsFromString('--expose-gc')
  const collect: unknown = runInNewContext('typeof gc === "function" ? gc : undefined')
  return typeof collect === 'function'
    ? (): void => {
        Reflect.apply(collect, undefined, [{ type: 'minor' }])
      }
    : (): void => undefined
}
