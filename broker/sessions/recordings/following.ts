/** Follows a recording that is being written: what is durable is read, then what becomes so is handed on, without a gap between the two. */
import { foundRunning, readEvents } from './reading.ts'
import type { ReadingDeps } from './reading.ts'
import type { RunningRecording } from './recording.ts'

/** Who follows. */
export interface Follower {
  readonly listener: (events: Buffer) => void
  readonly onEnd: (fault?: unknown) => void
}

/** Begins; see `RecordingReader.follow`. */
export function startFollowing(
  deps: ReadingDeps,
  { id, own }: { readonly id: string; readonly own: RunningRecording },
  from: number,
  { listener, onEnd }: Follower,
): () => void {
  let isStopped = false
  let unfollow: (() => void) | undefined
  const catchUp = async (): Promise<void> => {
    let position = from
    while (own.durable.bytes > position) {
      const found = foundRunning(id, own)
      for await (const events of await readEvents(deps, found, { from: position })) {
        if (isStopped) return
        listener(events)
        position += events.length
      }
    }
    if (isStopped) return
    // in one turn with the comparison: nothing becomes durable between the two
    let ahead = position - own.durable.bytes
    unfollow = own.follow((events) => {
      const skipped = Math.min(ahead, events.length)
      ahead -= skipped
      const rest = Buffer.from(events.buffer, events.byteOffset + skipped, events.length - skipped)
      if (rest.length > 0) listener(rest)
    })
    await own.over
  }
  void catchUp().then(
    () => {
      if (!isStopped) onEnd()
    },
    (error: unknown) => {
      if (!isStopped) onEnd(error)
    },
  )
  return () => {
    isStopped = true
    unfollow?.()
  }
}
