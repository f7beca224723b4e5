/** What the parts of this room say to each other of a recording's segments. */

/** A segment is closed before it would be larger, in bytes. */
export const MAX_SEGMENT_BYTES = 8 * 1024 * 1024

/** What a segment has. */
export interface Segment {
  readonly chunks: number
  /** Of events. */
  readonly bytes: number
}

/** Name of a segment in the archive. */
export function archiveName(id: string, name: string): string {
  return `${id}/${name}`
}
