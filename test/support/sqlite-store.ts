/** A real SQLite store in a folder of its own. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openSqliteStore } from '../../broker/store/sqlite/client.ts'
import type { SqliteStoreDeps } from '../../broker/store/sqlite/client.ts'
import type { Store } from '../../broker/store/store.ts'
import { createLog } from '../../shared/log.ts'

export const SILENT = createLog('test', 'silent')

/** Path of a database file in a new folder. */
export function newFile(): { file: string; remove: () => void } {
  const folder = mkdtempSync(join(tmpdir(), 'nestgate-store-'))
  const remove = (): void => {
    rmSync(folder, { recursive: true, force: true })
  }
  return { file: join(folder, 'nestgate.db'), remove }
}

export function open(file: string, change: Partial<SqliteStoreDeps> = {}): Promise<Store> {
  return openSqliteStore({ file, log: SILENT, now: Date.now, ...change })
}
