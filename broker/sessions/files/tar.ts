/** Files within a stream of tar. Until the parser is there, all of it is output like any other. */

/** A file of the archive. */
export interface TarFile {
  readonly name: string
  readonly size: number
}

/** See the head of the file. */
export interface FileWatch {
  /** @returns what of the piece is no file's content */
  push(bytes: Buffer): readonly Buffer[]
  end(): readonly Buffer[]
}

/** Begins to watch. */
export function watchTar(_onFile: (file: TarFile) => void): FileWatch {
  return { push: (bytes) => [bytes], end: () => [] }
}

/** Which stream of a command may be tar. */
export function tarStream(_command: readonly string[]): 'stdin' | 'stdout' | undefined {
  return undefined
}
