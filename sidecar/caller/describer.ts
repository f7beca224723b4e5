/** Says everything about the process that holds a connection, once it is known which one that is. */
import { createHmac, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { isKubectlProxy, readArguments, readDeclared } from './declared.ts'
import type { ExeHash } from './exe-hash.ts'
import type { Holding } from './holders.ts'
import type { Pin } from './pins.ts'
import { describeProcess } from './process.ts'
import { baseName, isRelay } from './verdict.ts'
import type { Findings } from './verdict.ts'

/** How long what was read is used, in milliseconds: user, parents and arguments may change without an exec. */
const FACTS_LIFE_MS = 1000

type OneHolder = Extract<Findings, { kind: 'one' }>
type Facts = Pick<OneHolder, 'process' | 'declared' | 'relay'>

/** See the head of the file. */
export interface Describer {
  /**
   * Undefined when the process went away or changed while it was read.
   *
   * @param unread - processes that could not be searched
   */
  describe(holding: Holding, pin: Pin, exeHash: ExeHash, unread: number): OneHolder | undefined
}

/** Reads the boot id, so it throws where there is no procfs. @param now - milliseconds, monotonic */
export function createDescriber(procRoot: string, now: () => number): Describer {
  const bootId = readFileSync(`${procRoot}/sys/kernel/random/boot_id`, 'latin1').trim()
  // Instance ids must not tell what they are made of: the exec mark is an address of the process.
  const instanceKey = randomBytes(32)
  const remembered = new WeakMap<Pin, { readonly at: number; readonly facts: Facts }>()

  const factsOf = ({ pid, tid }: Holding, pin: Pin): Facts | undefined => {
    const known = remembered.get(pin)
    if (known !== undefined && now() - known.at < FACTS_LIFE_MS) return known.facts
    const process = describeProcess(procRoot, pid, tid, pin.path)
    if (process === undefined) return undefined
    const exe = process.image.exe ?? ''
    const relay =
      isRelay(exe) || (baseName(exe) === 'kubectl' && isKubectlProxy(readArguments(pin.path)))
    const facts = { process, declared: readDeclared(pin.path), relay }
    remembered.set(pin, { at: now(), facts })
    return facts
  }

  /** Stable for one run of one program in one process, for as long as this sidecar runs. */
  const instanceId = ({ process: { pid, image } }: Facts, execOrdinal: number): string => {
    const parts = [bootId, pid, image.startTicks, image.exe, image.execMark, execOrdinal]
    return createHmac('sha256', instanceKey)
      .update(JSON.stringify(parts))
      .digest('hex')
      .slice(0, 32)
  }

  return {
    describe(holding, pin, exeHash, unread): OneHolder | undefined {
      const facts = factsOf(holding, pin)
      if (facts === undefined) return undefined
      const { execOrdinal } = pin
      const id = instanceId(facts, execOrdinal)
      return { kind: 'one', ...facts, exeHash, execOrdinal, instanceId: id, bootId, unread }
    },
  }
}
