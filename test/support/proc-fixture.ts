/** A made-up /proc: folders, files and links as the kernel shows them, for what no real process can be made to do. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

/** A process of the fixture. */
export interface FixtureProcess {
  readonly pid: number
  readonly parent?: number
  readonly name?: string
  readonly startTicks?: string
  readonly flags?: number
  readonly exe?: string
  readonly cgroup?: string
  readonly uid?: number
  /** Descriptors by thread: number to link target. */
  readonly threads?: Readonly<Record<number, Readonly<Record<string, string>>>>
}

/** See the head of the file. */
export interface ProcFixture {
  readonly root: string
  add(process: FixtureProcess): void
  write(path: string, text: string): void
  remove(path: string): void
  lastPid(pid: number): void
  delete(): void
}

/** An empty one. */
export function makeProcFixture(): ProcFixture {
  const root = mkdtempSync(join(tmpdir(), 'nestgate-proc-'))
  const write = (path: string, text: string): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  const fixture: ProcFixture = {
    root,
    write,
    add(process): void {
      const { pid, exe = '/bin/agent', cgroup = '0::/\n', uid = 1000 } = process
      for (const [tid, fds] of Object.entries(process.threads ?? { [pid]: {} })) {
        const task = `${pid}/task/${tid}`
        mkdirSync(join(root, task, 'fd'), { recursive: true })
        for (const [fd, target] of Object.entries(fds))
          symlinkSync(target, join(root, task, 'fd', fd))
        write(`${task}/status`, `Name:\tx\nUid:\t${uid}\t${uid + 1}\t0\t0\nGid:\t7\t8\t0\t0\n`)
        write(`${task}/stat`, statLine(process))
        write(`${task}/cgroup`, cgroup)
        symlinkSync(exe, join(root, task, 'exe'))
      }
      write(`${pid}/stat`, statLine(process))
      write(`${pid}/cgroup`, cgroup)
      symlinkSync(exe, join(root, String(pid), 'exe'))
    },
    remove(path): void {
      rmSync(join(root, path), { recursive: true })
    },
    lastPid(pid): void {
      write('loadavg', `0.00 0.00 0.00 1/100 ${pid}\n`)
    },
    delete(): void {
      rmSync(root, { recursive: true })
    },
  }
  fixture.lastPid(1)
  return fixture
}

/** A `stat` line as fs/proc/array.c prints it. */
export function statLine(process: FixtureProcess): string {
  const { pid, parent = 1, name = 'agent', startTicks = '100', flags = 0x400000 } = process
  const rest = [
    'S',
    parent,
    pid,
    pid,
    0,
    -1,
    flags,
    ...Array.from({ length: 12 }, () => 0),
    startTicks,
  ]
  return `${pid} (${name}) ${rest.join(' ')} 1 2 3 4 5 6 7\n`
}
