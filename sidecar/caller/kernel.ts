/** What the kernel of this machine can be asked, the costly way where the better one is missing. */
import { messageOf } from '../../shared/errors.ts'
import type { Log } from '../../shared/json-log.ts'
import { loadNative } from '../native.ts'
import type { CallerDeps } from './caller.ts'
import { createDiagSocketTable } from './sock-diag.ts'
import { createProcSocketTable } from './socket-table.ts'

/** An address pair that no connection has: port 0 is never given out. */
const NO_CONNECTION = {
  client: { address: '127.0.0.1', port: 0 },
  own: { address: '127.0.0.1', port: 0 },
}

/** sock_diag and kcmp where they answer; otherwise the text files of /proc/net and every thread's table, which the log then says once. */
export function openKernel(
  procRoot: string,
  log: Pick<Log, 'warn'>,
): Pick<CallerDeps, 'table' | 'shareFiles'> {
  try {
    const native = loadNative()
    const table = createDiagSocketTable(native.openDiagSocket())
    table.find([NO_CONNECTION])
    return { table, shareFiles: native.shareFiles }
  } catch (error) {
    log.warn({ error: messageOf(error) }, 'no sock_diag here; /proc/net is read instead, slowly')
    return { table: createProcSocketTable(procRoot) }
  }
}
